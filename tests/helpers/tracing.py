# SPDX-License-Identifier: GPL-2.0-only
"""The probe's tracers, started by tests, and what they trace."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until


def require(done: subprocess.CompletedProcess[Any]) -> None:
    """Skip where the kernel or this user may not, with the probe's own sentence."""
    if done.returncode in (3, 4):
        pytest.skip(bytes(done.stderr).decode().strip())


def one_sentence(said: bytes, *parts: bytes) -> None:
    assert said.startswith(b"vmaprobe: ") and said.count(b"\n") == 1, said
    for part in parts:
        assert part in said


@contextlib.contextmanager
def on_demand(odd: Path, threads: int, pages: int) -> Iterator[subprocess.Popen[str]]:
    """A process that faults when told to, and has faulted before; it has said its number."""
    words = [odd, "on-demand", str(threads), str(pages)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == f"{process.pid}\n"
        try:
            yield process
        finally:
            process.kill()


def demand(process: subprocess.Popen[str]) -> None:
    assert process.stdin and process.stdout
    process.stdin.write("x")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


@contextlib.contextmanager
def tracing(build: Path, what: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """The probe, while it traces; whoever it names is traced when this begins."""
    command = [build / "vmaprobe", what, *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as probe:  # type: ignore[call-overload]
        try:
            # Its wait has begun when it sleeps between two looks at them.
            until(lambda: probe.poll() is not None or b"nanosleep" in wait_channel(probe.pid))
            if probe.poll() is not None:
                _, said = probe.communicate()
                require(subprocess.CompletedProcess(command, probe.returncode, b"", said))
                pytest.fail(f"exit code {probe.returncode}: {said!r}")
            yield probe
        finally:
            probe.kill()


def wait_channel(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/wchan").read_bytes()
    except OSError:
        return b""
