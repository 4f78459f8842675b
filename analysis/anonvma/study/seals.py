# SPDX-License-Identifier: GPL-2.0-only
"""Seals: which tables have been found to be what their manifests say, and have not moved since.

To hash a table takes as long as to read it. Beside the runs a file keeps, of each table that was
hashed, the state in which it was; see `anonvma.study.sidecar`. Whoever may write to this file may
write to the manifests.
"""

from __future__ import annotations

from pathlib import Path

from anonvma.study.sidecar import Beside, state


class Seals:
    """The seals of the runs below a directory.

    Parameters
    ----------
    root : path
        If nothing can be kept there every table is hashed each time.
    """

    def __init__(self, root: Path) -> None:
        self._kept = Beside(root, ".seals", "2")

    def holds(self, file: Path, sha256: str) -> bool:
        """Tell whether a file was found to have this hash, and is as it was then."""
        return bool(self._kept.get(file) == [state(file), sha256])

    def put(self, file: Path, sha256: str) -> None:
        """Keep that a file has this hash."""
        self._kept.put(file, [state(file), sha256])

    def save(self) -> None:
        """Write what was put."""
        self._kept.save()
