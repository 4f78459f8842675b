# SPDX-License-Identifier: GPL-2.0-only
"""The configuration that a target's kernel was built with."""

from __future__ import annotations

import gzip
import re
import zlib

from anonvma.base.errors import TargetError, TargetLost
from anonvma.target.target import Target

_RELEASE = re.compile(r"[\w.+~-]+")


def of_running(target: Target) -> bytes | None:
    """Return what the kernel itself tells, the text of /proc/config.gz; None if it does not.

    It does if it was built with CONFIG_IKCONFIG_PROC.

    Raises
    ------
    TargetLost
        When the target has gone away.
    """
    try:
        return gzip.decompress(target.read("/proc/config.gz"))
    except TargetLost:
        raise
    except (TargetError, OSError, EOFError, zlib.error):
        return None


def installed(target: Target) -> bytes | None:
    """Return the text that a distribution installs beside a kernel of this release, or None.

    Raises as `of_running` does.
    """
    try:
        release = target.read("/proc/sys/kernel/osrelease").decode(errors="replace").strip()
        return target.read(f"/boot/config-{release}") if _RELEASE.fullmatch(release) else None
    except TargetLost:
        raise
    except TargetError:
        return None


def options(text: bytes) -> dict[str, str]:
    """Return the options that are set, without CONFIG_."""
    return dict(re.findall(r"^CONFIG_(\w+)=(.*)$", text.decode(errors="replace"), re.MULTILINE))
