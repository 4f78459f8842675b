# SPDX-License-Identifier: GPL-2.0-only
"""What the commands that run vmaprobe share."""

from __future__ import annotations

import subprocess

from anonvma.base.errors import PrivilegeError, ProbeError
from anonvma.target import target

__all__ = ["VANISHED", "pass_on", "require_privilege"]


VANISHED = 5  # vmaprobe's exit code for a process that is gone


def pass_on(done: subprocess.CompletedProcess[bytes]) -> None:
    """Raise what vmaprobe said, with its exit status, where it failed."""
    if done.returncode:
        sentence = done.stderr.decode(errors="backslashreplace").strip().removeprefix("vmaprobe: ")
        raise ProbeError(
            sentence or f"vmaprobe ended with exit status {done.returncode}.",
            done.returncode if 0 < done.returncode < 128 else 1,
        )


def require_privilege(there: target.Target) -> None:
    """Say with the refusal what can be seen all the same."""
    try:
        there.require_privilege()
    except PrivilegeError as error:
        raise PrivilegeError(
            f"{error} 'anonvma demo' shows the same of recorded data, without privilege."
        ) from None
