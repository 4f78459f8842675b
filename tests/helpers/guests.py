# SPDX-License-Identifier: GPL-2.0-only
"""Guests for tests: which kernels there are to boot."""

from __future__ import annotations

import functools
import platform
import subprocess
from pathlib import Path

import pytest
from waiting import PATIENCE

from anonvma.base.errors import TargetError
from anonvma.target import qemu

ROOT = Path(__file__).resolve().parents[2]


def require_qemu() -> None:
    """Skip where no guest can be booted."""
    if platform.machine() != "x86_64":
        pytest.skip(f"guests are x86-64, and this machine is {platform.machine()}")
    try:
        qemu.find()
    except TargetError as error:
        pytest.skip(str(error))


def stock(version: str, *, modules: bool = True) -> Path:
    """The image of Debian's newest kernel of a version, its modules beside it.

    Since 6.19 those are 100 MB of their own, and a guest needs none of them.
    """
    require_qemu()
    image, reason = _fetch(version, modules)
    if image is None:
        pytest.skip(f"Debian's {version} kernel cannot be fetched: {reason}")
    return image


def built(name: str) -> Path:
    """The image of one of the pair, as `make kernels` left it."""
    require_qemu()
    image = ROOT / "build/kernels" / name / "bzImage"
    assert image.exists(), f"there is no build/kernels/{name}/bzImage: run `make kernels`"
    return image


@functools.cache
def _fetch(version: str, modules: bool) -> tuple[Path | None, str]:
    done = subprocess.run(
        [ROOT / "analysis/setup/stock-kernel", *([] if modules else ["--image-only"]), version],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1]
    return Path(done.stdout.strip()), ""
