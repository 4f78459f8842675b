# SPDX-License-Identifier: GPL-2.0-only
"""Guests for tests: which kernels there are to boot."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest
from waiting import PATIENCE

from anonvma.base.errors import TargetError
from anonvma.target import qemu
from anonvma.target.architecture import ARM64, Architecture, here

ROOT = Path(__file__).resolve().parents[2]


def require_qemu(architecture: Architecture | None = None) -> None:
    """Skip where no guest can be booted; by default of this machine's architecture."""
    try:
        qemu.find(architecture or here())
    except TargetError as error:
        pytest.skip(str(error))


def stock(version: str, *, modules: bool = True) -> Path:
    """The image of Debian's newest kernel of a version, its modules beside it.

    Since 6.19 those are 100 MB of their own, and a guest needs none of them.
    """
    require_qemu()
    return _image(version, modules, "")


def stock_arm64(version: str, variant: str = "arm64") -> Path:
    """The image of Debian's newest for arm64, or of a variant, with what it takes to boot it."""
    require_qemu(ARM64)
    if ARM64.programs:
        words = ["make", "build", f"ARCH={ARM64.arch}"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            why = next((x for x in done.stderr.splitlines() if x.startswith("anonvma: ")), "")
            assert why, done.stderr  # packages cannot be had: anything else is a failure
            pytest.skip(f"the programs for arm64 cannot be built: {why}")
    return _image(version, False, variant)


def _image(version: str, modules: bool, arch: str) -> Path:
    image, reason = _fetch(version, modules, arch)
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
def _fetch(version: str, modules: bool, arch: str) -> tuple[Path | None, str]:
    options = [*([] if modules else ["--image-only"]), *(["--arch", arch] if arch else [])]
    done = subprocess.run(
        [ROOT / "analysis/setup/stock-kernel", *options, version],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1]
    return Path(done.stdout.strip()), ""
