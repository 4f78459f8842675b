# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures shared by all tests.

A test that cannot run here skips with its exact reason; with ANONVMA_STRICT=1 every
skip is a failure, so that a machine that should run everything proves it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest

matplotlib.use("Agg")

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    # A shell without job control has what it starts in the background ignore these, which every
    # process below would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.skipped and os.environ.get("ANONVMA_STRICT") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped although ANONVMA_STRICT=1: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def build() -> Path:
    """The directory with vmaprobe, vmload and specimens."""
    directory = Path(os.environ.get("ANONVMA_BUILD", ROOT / "build"))
    missing = [n for n in ("vmaprobe", "vmload", "specimens") if not (directory / n).exists()]
    if missing:
        pytest.fail(f"{', '.join(missing)} not built in {directory}: run `make build`")
    return directory


@pytest.fixture(scope="session")
def odd_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """odd_process.c, compiled."""
    program = tmp_path_factory.mktemp("odd") / "odd_process"
    source = Path(__file__).with_name("odd_process.c")
    subprocess.run(
        ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program, source], check=True
    )
    return program


@pytest.fixture(scope="session")
def odd_faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """odd_faults.c, compiled so that it runs in a guest, too, with two files of its own."""
    program = tmp_path_factory.mktemp("odd") / "odd_faults"
    source = Path(__file__).with_name("odd_faults.c")
    words = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]
    subprocess.run([*words, "-o", program, source], check=True)
    for name in ("one", "two"):
        (program.parent / name).write_bytes(
            random.Random(name).randbytes(8 * os.sysconf("SC_PAGE_SIZE"))
        )
    return program


@pytest.fixture
def odd_process(odd_program: Path) -> Iterator[Callable[..., list[int]]]:
    """Start an odd process of some kind; the pids it printed, the last one its own."""
    started: list[subprocess.Popen[str]] = []

    def start(kind: str, *arguments: str | bytes | Path, pids: int = 1) -> list[int]:
        process = subprocess.Popen(
            [odd_program, kind, *arguments], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout
        return [int(process.stdout.readline()) for _ in range(pids)]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
