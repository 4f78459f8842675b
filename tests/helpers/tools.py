# SPDX-License-Identifier: GPL-2.0-only
"""sshd, sudo, cpio, zstd, which a machine need not have: unpacked in build/hosts, not installed."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Where the tree that is tested is found by whoever is in such a namespace, wherever it lies here.
TREE = "/run/tools/tree"

# In a mount namespace: a /run of its own, and the tree.
_LAY = f"""
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/tools/tools {TREE}
mount --bind {{root}} {TREE}
{{tools}}
mount -t tmpfs -o mode=755 tmpfs /etc/sudoers.d
"""

# ... and the tools over /usr and /etc. They are copied, since they have to be root's, sudo
# with its set-user-ID bit, and whoever unpacked them may not have been root.
_LAY_TOOLS = """
cp -r {tools}/. /run/tools/tools
chown -R 0:0 /run/tools/tools
chmod 4755 /run/tools/tools/usr/bin/sudo
chmod 440 /run/tools/tools/etc/sudoers
mount -t overlay -o ro,lowerdir=/run/tools/tools/usr:/usr overlay /usr
mount -t overlay -o ro,lowerdir=/run/tools/tools/etc:/etc overlay /etc
"""


@functools.cache
def _unpacked() -> tuple[Path | None, str]:
    done = subprocess.run(
        [ROOT / "analysis/setup/host-tools"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1].removeprefix("anonvma: ")
    return Path(done.stdout.strip()), ""


@functools.cache
def _refusal() -> str:
    """Why there can be no such namespace; nothing if there can."""
    words = ["unshare", "--mount", "--pid", "--fork", "--uts", "--mount-proc", "sh", "-ec"]
    done = subprocess.run([*words, _lay()], capture_output=True, text=True, check=False)
    return done.stderr.strip()


def _lay() -> str:
    found, reason = _unpacked()
    installed = os.path.exists("/usr/sbin/sshd") and shutil.which("sudo")
    if found is None and not installed:
        pytest.skip(reason)
    lay_tools = _LAY_TOOLS.format(tools=shlex.quote(str(found))) if found else ""
    return _LAY.format(tools=lay_tools, root=shlex.quote(str(ROOT)))


def lay() -> str:
    """Lines of shell (under set -e) that lay them over /usr and /etc of a mount namespace."""
    if os.geteuid():
        pytest.skip("only root can make the namespaces of a host")
    if refusal := _refusal():
        pytest.skip(f"namespaces of a host's own are refused: {refusal}")
    return _lay()


def seen_there(path: Path) -> Path:
    """What a file of the tree that is tested is called in such a namespace."""
    return Path(TREE) / path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def program(name: str) -> str:
    """The path of one of them, this machine's own if it has it."""
    if own := shutil.which(name):
        return own
    found, reason = _unpacked()
    if found is None:
        pytest.skip(reason)
    return str(found / "usr/bin" / name)
