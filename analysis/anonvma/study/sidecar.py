# SPDX-License-Identifier: GPL-2.0-only
"""What is kept beside the runs of a directory, to save finding it out again.

Nothing depends on such a file: one that is missing, damaged, or of another anonvma is made anew,
and it is no error if none can be written. What it says of a file counts only as long as the file
is in the state in which it was looked at. To write to a file sets its time of change (ctime), which
nobody can set, and a copy has a number of its own (inode): so a file that came along with the runs
of others says nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from anonvma.base import marker
from anonvma.base.errors import RunError
from anonvma.run import files

_MOST = 256 << 20


class Beside:
    """Entries by path, kept in a file.

    Parameters
    ----------
    root : path
        The directory of runs.
    name : str
        Of the file.
    of : str
        What the entries depend on besides the files that they tell of.
    """

    def __init__(self, root: Path, name: str, of: str) -> None:
        self._root, self._name, self._of = root, name, of
        self._entries: dict[str, Any] | None = None
        self._changed = False

    def get(self, path: Path) -> Any:
        """Return what is kept of a path, None if nothing is."""
        return self._all().get(self._key(path))

    def put(self, path: Path, entry: Any) -> None:
        """Keep this of a path."""
        self._all()[self._key(path)] = entry
        self._changed = True

    def save(self) -> None:
        """Write what was put, if anything was and there is a place for it."""
        if not self._changed:
            return
        self._changed = False
        kept = {key: e for key, e in self._all().items() if os.path.lexists(self._root / key)}
        with contextlib.suppress(OSError), marker.new_file(self._root / self._name) as draft:
            draft.write_text(json.dumps({"of": self._of, "entries": kept}), encoding="utf-8")

    def _key(self, path: Path) -> str:
        return os.fsencode(os.path.relpath(path, self._root)).decode(errors="backslashreplace")

    def _all(self) -> dict[str, Any]:
        if self._entries is None:
            self._entries = {}
            with contextlib.suppress(RunError, ValueError, RecursionError):
                told = json.loads(files.contents(self._root / self._name, _MOST))
                if isinstance(told, dict) and told.get("of") == self._of:
                    entries = told.get("entries")
                    self._entries = entries if isinstance(entries, dict) else {}
        return self._entries


def state(file: Path) -> list[int] | None:
    """Return what changes when a file does, None if there is no such file."""
    try:
        about = os.lstat(file)
    except OSError:
        return None
    return [about.st_mode, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
