# SPDX-License-Identifier: GPL-2.0-only
"""Which QEMU boots guests: the system's, or a private one where the system's is too old.

From 8.1 on TCG may give each virtual processor a thread of its own, so that they contend for a lock
as real ones do ("accel/tcg: Always lock pages before translation": until then a breakpoint of
text_poke_bp() could outlive the poke in a translation made meanwhile, "Oops: int3"). Where the
system has none of these, analysis/setup/qemu fetches one into build/, the first time that a guest
is booted; nothing is installed. Where that cannot be done, an old one serves, with turns.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from anonvma.base import paths
from anonvma.base.errors import TargetError
from anonvma.target.architecture import X86, Architecture

_PRIVATE = {"x86": "qemu", "arm64": "qemu-arm64"}  # in build/
_THREADS = (8, 1)


class Qemu(NamedTuple):
    """A QEMU that runs.

    Attributes
    ----------
    path : str
        Of the program.
    version : str
        As it tells it, such as ``10.0.13``.
    private : bool
        It is the one in build/.
    lacks : str
        Why there is none of 8.1 or later, if this one is older; else empty.
    """

    path: str
    version: str
    private: bool = False
    lacks: str = ""

    @property
    def threads(self) -> str:
        """``multi`` if each virtual processor may have a thread of its own, else ``single``."""
        numbers = re.match(r"(\d+)\.(\d+)", self.version)
        late = numbers is not None and (int(numbers[1]), int(numbers[2])) >= _THREADS
        return "multi" if late else "single"


_LACKS: dict[Path, str] = {}
"""Why no private one could be had, by its place; only in this process."""


def find(architecture: Architecture = X86) -> Qemu:
    """Return the QEMU to boot guests of an architecture with.

    Raises
    ------
    TargetError
        There is none, and none could be fetched, or the one there is does not run.
    """
    name = architecture.qemu
    system = shutil.which(name)
    theirs = Qemu(os.path.abspath(system), _version(system)) if system else None
    if theirs and theirs.threads == "multi":
        return theirs
    directory = paths.build() / _PRIVATE[architecture.arch]
    own = directory / "bin" / name
    missing = not os.access(own, os.X_OK)
    if missing and directory not in _LACKS and (reason := _fetch(directory, name)):
        _LACKS[directory] = reason
    if os.access(own, os.X_OK):
        return Qemu(str(own), _version(str(own)), private=True)
    if theirs:
        return theirs._replace(lacks=_LACKS[directory])
    raise TargetError(
        f"booting a guest needs {name}, which is not here: install the package "
        f"{architecture.package} (Debian and Ubuntu). A private one cannot be had: "
        f"{_LACKS[directory]}"
    )


def _version(path: str) -> str:
    done = subprocess.run(
        [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
    )
    match = re.search(rb"version (\S+)", done.stdout)
    if done.returncode or not match:
        raise TargetError(f"{path} does not run: exit status {done.returncode}.")
    return match[1].decode(errors="replace")


def _fetch(directory: Path, name: str) -> str:
    """Fetch the private one; return why it could not be, or an empty string."""
    script = paths.root() / "analysis/setup/qemu"
    if not script.exists():
        return "this is not a checkout of anonvma."
    print(f"Fetching a QEMU of 8.1 or later into {directory} (45 MB).", file=sys.stderr)
    done = subprocess.run(
        [script, directory, name],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.returncode:
        return ""
    said = done.stderr.strip().splitlines() or ["it does not say why."]
    return said[-1].removeprefix("anonvma: ")
