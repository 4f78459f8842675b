# SPDX-License-Identifier: GPL-2.0-only
"""An ordinary user, for tests that run as root: a number that nobody is, and nothing of root's.

The checkout, or its Python, may lie where no other user may look, such as in /root. Then the
command gets a mount namespace in which the closed directories hold nothing but these.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from anonvma.base import paths
from anonvma.explore.live import CAPABILITIES

USER = 61190  # of those that systemd hands out as dynamic users

_SHOW = """
set -e
place=$1 && shift
while [ "$1" != -- ]; do
	mkdir -p "$place$1" && mount --bind "$1" "$place$1"
	shown="$shown $1" && shift
done
shift
while [ "$1" != -- ]; do mount -t tmpfs -o mode=755 tmpfs "$1" && shift; done
shift
for path in $shown; do mkdir -p "$path" && mount --bind "$place$path" "$path"; done
exec "$@"
"""


def becoming(place: Path) -> list[str]:
    """The words that, before a command, make it the ordinary user's; `place` is for mounts."""
    needed = [paths.root(), Path(sys.prefix), Path(sys.base_prefix)]
    hidden: dict[str, list[str]] = {}  # by a directory that is closed, what to show in it
    for path in dict.fromkeys(Path(os.path.realpath(path)) for path in needed):
        closed = [up for up in reversed(path.parents) if not up.stat().st_mode & 0o001]
        if closed:
            hidden.setdefault(str(closed[0]), []).append(str(path))
    words = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all"]
    # setpriv itself still has what it needs to start anything; the shell after it has not.
    words += ["--", "sh", "-c", 'exec "$@"', "sh"]
    if not hidden:
        return words
    shown = [path for paths in hidden.values() for path in paths]
    show = ["unshare", "--mount", "sh", "-c", _SHOW, "sh", str(place), *shown, "--", *hidden, "--"]
    return [*show, *words]


@contextmanager
def capable(build: Path) -> Iterator[Path]:
    """A directory that every user can reach, with a probe that its capabilities privilege."""
    setcap = shutil.which("setcap", path=f"{os.defpath}:/usr/sbin:/sbin")
    if os.geteuid() != 0 or setcap is None:
        pytest.skip("giving a file capabilities needs root and setcap (Debian: libcap2-bin)")
    with TemporaryDirectory() as name:  # pytest closes its own, again and again
        directory = Path(name)
        directory.chmod(0o755)
        for program in ("vmaprobe", "vmload", "specimens"):
            shutil.copy(build / program, directory)
        home = directory / "home"
        home.mkdir()
        os.chown(home, USER, USER)
        probe = directory / "vmaprobe"
        done = subprocess.run([setcap, CAPABILITIES, probe], check=False)
        if done.returncode or os.statvfs(directory).f_flag & os.ST_NOSUID:
            pytest.skip(f"files in {directory} cannot have capabilities")
        yield directory


def environment(directory: Path) -> dict[str, str]:
    """What a command of that user is given, its home and programs in a `capable` directory."""
    home = str(directory / "home")
    own = {"ANONVMA_BUILD": str(directory), "ANONVMA_RUNS": f"{home}/runs", "HOME": home}
    own |= {"TMPDIR": home, "SHELL": "/bin/sh", "USER": "nobody-else", "LOGNAME": "nobody-else"}
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("JUPYTER_", "XDG_", "SUDO_"))}
    return kept | own
