# SPDX-License-Identifier: GPL-2.0-only
"""A run of nothing but some tables, for tests of what is made of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd


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
