# SPDX-License-Identifier: GPL-2.0-only
"""anonvma.target.qemu: which QEMU boots guests, with programs that only tell a version.

That the one which is fetched boots is what test_guest.py sees, where the system's is old.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from anonvma.base import paths
from anonvma.base.errors import TargetError
from anonvma.target import qemu
from anonvma.target.architecture import X86
from anonvma.target.qemu import Qemu

ROOT = Path(__file__).resolve().parents[2]
NAME = "qemu-system-x86_64"
MACHINE = X86._replace(qemu=NAME + "-of-the-test")


def tells(path: Path, version: str) -> Path:
    """A program that tells a version as QEMU does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'QEMU emulator version {version} (Debian 1:2)'\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without QEMU, on which nothing can be fetched."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("ANONVMA_BUILD", str(tmp_path / "build"))
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    monkeypatch.setattr(qemu, "_LACKS", {})
    script = tmp_path / "analysis/setup/qemu"
    script.parent.mkdir(parents=True)
    script.write_text(
        "#!/bin/sh\necho 'E: words of apt' >&2\necho 'anonvma: no way.' >&2\nexit 1\n"
    )
    script.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("version", "threads"),
    [
        ("7.2.22", "single"),
        ("8.0.5", "single"),
        ("8.1.0", "multi"),
        ("10.0.13", "multi"),
        ("odd", "single"),
    ],
)
def test_threads_are_safe_from_8_1_on(version: str, threads: str) -> None:
    # A guest was lost with "Oops: int3" in one of four runs on QEMU 7.2.
    assert Qemu("", version).threads == threads


def test_the_systems_own_is_taken_if_it_is_late_enough(place: Path) -> None:
    path = tells(place / "bin" / MACHINE.qemu, "8.1.0")
    tells(place / "build/qemu/bin" / MACHINE.qemu, "10.0.13")
    assert qemu.find(MACHINE) == Qemu(str(path), "8.1.0")


def test_else_the_private_one(place: Path) -> None:
    tells(place / "bin" / MACHINE.qemu, "7.2.22")
    path = tells(place / "build/qemu/bin" / MACHINE.qemu, "10.0.13")
    assert qemu.find(MACHINE) == Qemu(str(path), "10.0.13", private=True)


def test_which_is_fetched_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tells(place / "new", "10.0.13")
    (place / "analysis/setup/qemu").write_text(
        f"#!/bin/sh\nmkdir -p $1/bin && cp '{new}' $1/bin/{MACHINE.qemu}\n"
    )
    for _ in range(2):
        assert qemu.find(MACHINE).private
    assert capsys.readouterr().err.count("Fetching") == 1


def test_an_old_one_serves_with_the_reason(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tells(place / "bin" / MACHINE.qemu, "7.2.22")
    for _ in range(2):
        assert qemu.find(MACHINE) == Qemu(str(path), "7.2.22", lacks="no way.")
    assert capsys.readouterr().err.count("Fetching") == 1  # a failure is not tried again


def test_none_at_all() -> None:
    with pytest.raises(TargetError, match=r"install the package qemu-system-x86 .*: no way\."):
        qemu.find(MACHINE)


def test_one_that_does_not_run(place: Path) -> None:
    path = tells(place / "bin" / MACHINE.qemu, "9")
    path.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(TargetError, match="does not run: exit status 3"):
        qemu.find(MACHINE)


def test_the_script_and_the_package_agree(place: Path) -> None:
    """analysis/setup/qemu, which make calls, finds what qemu.find() does."""
    for version in ("8.1.0", "10.0.13"):
        path = tells(place / "bin" / NAME, version)
        done = subprocess.run(
            [ROOT / "analysis/setup/qemu", place / "there"], capture_output=True, text=True
        )
        assert done.stdout == f"{path}\n", done.stderr
