# SPDX-License-Identifier: GPL-2.0-only
"""Which job it is, and what it is done with: names and hashes of a study's jobs."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import re
import stat
from pathlib import Path

from anonvma.base import paths
from anonvma.base.errors import StudyError
from anonvma.run.manifest import FORMAT
from anonvma.run.schema import SCHEMAS

THIS_MACHINE = "this machine"
"""The host of everything that runs here, guests too."""
_PROGRAMS = ("vmaprobe", "vmload", "specimens", "guest-init")


def slug(text: str) -> str:
    """Return a text as part of the name of a job: a-z, 0-9, dots and dashes."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")[:48]


def canonical(value: object) -> str:
    """Return a value as JSON, always the same for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest(value: object) -> str:
    """Return the SHA-256 of a value in its canonical form."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def image_of(target: str) -> str | None:
    """Return the path of a guest's image; what follows it begins at a comma and a name."""
    if not target.startswith("guest:"):
        return None
    return re.split(r",(?=[a-z]+=)", target.removeprefix("guest:"))[0] or None


def host_of(target: str) -> str:
    """Return what can run one measurement at a time: guests run on this machine."""
    if target == "local" or target.startswith("guest:"):
        return THIS_MACHINE
    return re.split(r",(?=[a-z]+=)", target)[0]


@functools.cache
def _file_hash(path: Path, size: int, time_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hash_of(path: Path) -> str:
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return _file_hash(path, about.st_size, about.st_mtime_ns)


def kernel_of(target: str) -> str | None:
    """Return what the kernel is: an image's hash, our own release; None: only the target knows."""
    image = image_of(target)
    if image:
        return _hash_of(Path(image))
    return os.uname().release if target == "local" else None


@functools.cache
def tools(notebook: Path) -> dict[str, str]:
    """Return the hashes of what every cell is done with."""
    cells = json.loads(notebook.read_bytes())["cells"]
    sources = [[cell["cell_type"], "".join(cell["source"])] for cell in cells]
    tables = {name: str(declared.remove_metadata()) for name, declared in SCHEMAS.items()}
    return {
        "notebook": digest(sources),
        "schemas": digest([FORMAT, tables]),
        **{name: _hash_of(paths.program(name)) for name in _PROGRAMS},
    }


@functools.cache
def parameters_of(notebook: Path) -> list[str]:
    """Return the names of a notebook's parameters."""
    import papermill  # half a second, and only here

    try:
        return list(papermill.inspect_notebook(str(notebook).replace("{", "{{").replace("}", "}}")))
    except (ValueError, KeyError, TypeError):
        raise StudyError(f"{notebook} is not a notebook.") from None
