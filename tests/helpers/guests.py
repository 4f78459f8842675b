# SPDX-License-Identifier: GPL-2.0-only
"""Guests for tests: which kernels there are to boot."""

from __future__ import annotations

import contextlib
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import adjacent
import pytest
from waiting import PATIENCE

from anonvma.base.errors import TargetError
from anonvma.target import kernel_image, qemu
from anonvma.target.architecture import ARM64, Architecture, here
from anonvma.target.guest import Guest

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
    _require_arm64()
    return _image(version, False, variant)


def built_arm64(name: str, variant: str = "arm64") -> Path:
    """The image of one of the pair for arm64, or for a variant of it, likewise.

    Skips where it was not built, which takes longer than all other tests together.
    """
    arch, _, pages = variant.partition("-")
    image = ROOT / "build/kernels" / variant / name / "Image"
    if not image.exists():
        words = f"make kernels ARCH={arch}" + (f" PAGES={pages}" if pages else "")
        pytest.skip(f"no kernel of {variant} is built here: {words} takes longer than CI has")
    _require_arm64()
    return image


def _require_arm64() -> None:
    require_qemu(ARM64)
    if ARM64.programs:
        words = ["make", "build", f"ARCH={ARM64.arch}"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            why = next((x for x in done.stderr.splitlines() if x.startswith("anonvma: ")), "")
            assert why, done.stderr  # packages cannot be had: anything else is a failure
            pytest.skip(f"the programs for arm64 cannot be built: {why}")


def _image(version: str, modules: bool, arch: str) -> Path:
    image, reason = _fetch(version, modules, arch)
    if image is None:
        pytest.skip(f"Debian's {version} kernel cannot be fetched: {reason}")
    return image


@contextlib.contextmanager
def ram_disk(target: Guest, directory: Path) -> Iterator[int]:
    """Have a RAM disk with swap on it, and a process with pages in that (ram_swap.c): its pid."""
    modules = kernel_image.module_directory(target.image)
    assert modules, "the kernel's modules are not beside it"
    (directory / "brd.ko").write_bytes(kernel_image.find_modules(modules, ["brd"])[-1].content)
    program = adjacent.compiled(directory, Path(__file__).with_name("ram_swap.c"))
    words = [target.push(program), target.push(directory / "brd.ko")]
    with target.start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        yield int(process.stdout.readline())
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


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
