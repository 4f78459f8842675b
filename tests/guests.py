# SPDX-License-Identifier: GPL-2.0-only
"""Guests for tests: which kernels there are to boot."""

from __future__ import annotations

import functools
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def require_qemu() -> None:
    """Skip where no guest can be booted."""
    if platform.machine() != "x86_64":
        pytest.skip(f"guests are x86-64, and this machine is {platform.machine()}")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed (package qemu-system-x86)")


def stock(version: str) -> Path:
    """The image of Debian's newest kernel of a version, its modules beside it."""
    require_qemu()
    image, reason = _fetch(version)
    if image is None:
        pytest.skip(f"Debian's {version} kernel cannot be fetched: {reason}")
    return image


@functools.cache
def _fetch(version: str) -> tuple[Path | None, str]:
    done = subprocess.run(
        [ROOT / "analysis/setup/stock-kernel", version],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1]
    return Path(done.stdout.strip()), ""
