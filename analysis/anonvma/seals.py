# SPDX-License-Identifier: GPL-2.0-only
"""Seals: which tables have been found to be what their manifests say, and have not moved since.

To hash a table takes as long as to read it. Beside the runs a file keeps, of each table that was
hashed, its size, its times and its number on the disk; as long as these are the same nothing was
written to it, for a write sets the time of change (ctime), which nobody can set. Whoever may write
to this file may write to the manifests.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from anonvma import run_files
from anonvma.errors import RunError

__all__ = ["Seals"]

_FILE = ".seals"
_FORMAT = 1
_MOST = 256 << 20


class Seals:
    """The seals of the runs below a directory.

    Parameters
    ----------
    root : path
        It is no error if nothing can be kept there: every table is then hashed each time.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, Any] | None = None
        self._changed = False

    def holds(self, file: Path, sha256: str) -> bool:
        """Tell whether a file was found to have this hash, and is as it was then.

        Raises
        ------
        RunError
            When it is no file.
        """
        return self._all().get(self._key(file)) == [*_state(file), sha256]

    def put(self, file: Path, sha256: str) -> None:
        """Keep that a file has this hash."""
        self._all()[self._key(file)] = [*_state(file), sha256]
        self._changed = True

    def _key(self, file: Path) -> str:
        return os.fsencode(file.relative_to(self._root)).decode(errors="backslashreplace")

    def _all(self) -> dict[str, Any]:
        if self._known is None:
            self._known = {}
            with contextlib.suppress(RunError, ValueError, RecursionError):
                told = json.loads(run_files.contents(self._root / _FILE, _MOST))
                if isinstance(told, dict) and told.get("format") == _FORMAT:
                    files = told.get("files")
                    self._known = files if isinstance(files, dict) else {}
        return self._known

    def save(self) -> None:
        """Write what was put, if anything was and there is a place for it."""
        if not self._changed:
            return
        self._changed = False
        kept = {key: seal for key, seal in self._all().items() if (self._root / key).exists()}
        with contextlib.suppress(OSError):
            handle, draft = tempfile.mkstemp(prefix=_FILE, dir=self._root)
            try:
                with open(handle, "w", encoding="utf-8") as stream:
                    json.dump({"format": _FORMAT, "files": kept}, stream)
                os.replace(draft, self._root / _FILE)
            except BaseException:
                os.unlink(draft)
                raise


def _state(file: Path) -> list[int]:
    with run_files.opened(file) as stream:
        about = os.fstat(stream.fileno())
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
