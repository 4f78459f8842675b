# SPDX-License-Identifier: GPL-2.0-only
"""What tests start: finding all of it again, and starting it where mounts are its own."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from pathlib import Path

import pytest
from waiting import PATIENCE, until

VARIABLE = "ANONVMA_TEST_TOKEN"


def new_token() -> str:
    """A value of the variable, which everything a test starts inherits, that is not in use."""
    return secrets.token_hex(8)


def carriers(token: str) -> list[str]:
    """The processes that have the token, other than this one; a zombie has nothing any more."""
    mark = f"{VARIABLE}={token}".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if int(directory.name) != os.getpid() and mark in (
                (directory / "environ").read_bytes().split(b"\0")
            ):
                words = (directory / "cmdline").read_bytes().replace(b"\0", b" ")
                found.append(f"{directory.name} {words.decode(errors='replace')}")
        except OSError:  # it ended meanwhile
            continue
    return found


def survivors(token: str, patience: float = PATIENCE) -> list[str]:
    """Those that still have the token after as long as killed processes may need to go."""
    deadline = time.monotonic() + patience
    while (left := carriers(token)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def wait_for(token: str, count: int) -> None:
    """Wait until so many processes have the token."""
    until(lambda: len(carriers(token)) >= count, lambda: carriers(token))


def alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pids: list[int]) -> None:
    """Wait until none of these is alive."""
    until(lambda: not any(map(alive, pids)), lambda: f"alive: {list(filter(alive, pids))}")


def in_namespace(
    prepare: str, argv: list[str], **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a mount namespace that lines of shell have prepared."""
    namespace = ["unshare", "--mount", "sh", "-ec"]
    if subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("a mount namespace is refused here")
    return subprocess.run(
        [*namespace, f'{prepare}\nexec "$@"', "sh", *argv],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
