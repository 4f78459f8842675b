# SPDX-License-Identifier: GPL-2.0-only
"""A run of nothing but some tables, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa

from anonvma.run.manifest import Manifest
from anonvma.run.runs import Run


class MadeRun:
    """Has what analyses ask of a run: tables, their names, the kernel's release, an id."""

    def __init__(
        self, tables: dict[str, pd.DataFrame], release: str = "6.12", name: str = "made"
    ) -> None:
        self.id = name
        self.manifest: Any = SimpleNamespace(
            tables=dict(tables), target={"kernel_release": release}
        )
        self.table = tables.__getitem__

    def arrow(self, name: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a table, as Arrow has them; one that was not made is null."""
        return pa.Table.from_pandas(self.table(name).reindex(columns=list(columns)))


class ChangedRun(Run):
    """A recorded run, as if some of its tables, or its manifest, had been others."""

    def __init__(
        self, run: Run, tables: dict[str, pd.DataFrame], manifest: Manifest | None = None
    ) -> None:
        super().__init__(run.path, manifest or run.manifest)
        self._tables = tables

    def table(self, name: str) -> pd.DataFrame:
        return self._tables[name].copy() if name in self._tables else super().table(name)
