# SPDX-License-Identifier: GPL-2.0-only
"""`anonvma lab`: whom it becomes, what it leaves; a browser drives it in its own test."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from anonvma.base.errors import SetupError
from anonvma.explore import lab

pytestmark = pytest.mark.xdist_group("lab")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives root up")


def test_root_becomes_whoever_is_behind_sudo() -> None:
    ordinary = next(user for user in pwd.getpwall() if user.pw_uid > 0)
    sudo = {"SUDO_UID": str(ordinary.pw_uid), "SUDO_USER": ordinary.pw_name}
    found = lab.user_of(sudo)
    assert (found.uid, found.gid, str(found.home)) == (
        ordinary.pw_uid,
        ordinary.pw_gid,
        ordinary.pw_dir,
    )
    assert lab.user_of({}, ordinary.pw_name) == found


@pytest.mark.parametrize("environment", [{}, {"SUDO_UID": "0", "SUDO_USER": "root"}])
def test_without_one_root_becomes_someone_nobody_is(environment: dict[str, str]) -> None:
    found = lab.user_of(environment)
    assert found.uid not in {user.pw_uid for user in pwd.getpwall()} | {0}
    assert found.home is None
    assert not [p for p in Path("/proc").glob("[0-9]*") if owner(p) == found.uid]


def owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:  # gone meanwhile
        return None


def test_users_that_will_not_do_are_refused() -> None:
    with pytest.raises(SetupError, match="there is no user 'nobody-at-all'"):
        lab.user_of({}, "nobody-at-all")
    with pytest.raises(SetupError, match="'root' is root: name an ordinary user"):
        lab.user_of({}, "root")


def test_what_it_listens_on_cannot_be_overridden() -> None:
    words = lab.command(lab.NOTEBOOK, False, 9999, ["--ServerApp.ip=0.0.0.0"])
    addresses = [word for word in words if word.startswith("--ServerApp.ip=")]
    assert addresses[-1] == "--ServerApp.ip=127.0.0.1"
    assert words.index(addresses[0]) < words.index(addresses[-1])
    assert "--no-browser" in words and words[-1].endswith("explore.ipynb")


@AS_ROOT
def test_root_is_really_given_up(tmp_path: Path) -> None:
    """Whatever the checkout and Python are hidden by, it runs ours, with no capability left."""
    user = lab.user_of({})
    tmp_path.chmod(0o755)
    script = (
        "import os, anonvma.explore.explorer;"
        "print(os.getresuid(), os.getresgid(), os.getgroups());"
        "print(open('/proc/self/status').read());"
        "open(os.environ['PROBE'], 'w')"
    )
    words = [*lab.becoming(tmp_path, user), sys.executable, "-c", script]
    environment = {**os.environ, "PROBE": str(lab.paths.root() / "not-to-be-written")}
    done = subprocess.run(words, capture_output=True, text=True, cwd="/", env=environment)
    assert done.stdout.startswith(f"({user.uid}, {user.uid}, {user.uid}) ")
    assert f"({user.gid}, {user.gid}, {user.gid}) [" in done.stdout
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert re.search(rf"^{name}:\s+0+$", done.stdout, re.M), name
    assert "PermissionError" in done.stderr


@AS_ROOT
def test_hidden_checkout_is_shown_alone(tmp_path: Path) -> None:
    """A directory closed to others, as /root is: in it only what was named can be seen."""
    closed = tmp_path / "closed"
    shown, secret = closed / "way" / "shown", closed / "secret"
    for directory in (shown, secret):
        directory.mkdir(parents=True)
        (directory / "file").write_text("x")
    closed.chmod(0o700)
    place = tmp_path / "place"
    place.mkdir()
    words = ["unshare", "--mount", "sh", "-c", lab._SHOW, "sh", place, f"hidden:{closed}", shown]
    listing = ["find", closed, "-type", "f"]
    done = subprocess.run([*words, "--", *listing], capture_output=True, text=True)
    if "unshare failed" in done.stderr:
        pytest.skip("a mount namespace is refused here")
    assert done.stdout.splitlines() == [str(shown / "file")], done.stderr
    mode = subprocess.run(
        [*words[:6], *(tmp_path / "again",), *words[7:], "--", "stat", "-c", "%a", closed],
        capture_output=True,
        text=True,
    )
    assert mode.returncode  # a place that is not there is a failure, not a silent success
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700  # outside nothing changed


@AS_ROOT
def test_probe_is_privileged_for_its_user_alone(build: Path) -> None:
    user = lab.user_of({})
    # Not pytest's own directory, which is closed to other users.
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    programs = lab._programs(directory / "build", user)
    probe = programs / "vmaprobe"
    assert stat.S_IMODE(probe.stat().st_mode) == 0o750
    assert (probe.stat().st_uid, probe.stat().st_gid) == (0, user.gid)
    census = [probe, "census", "--pid", str(os.getpid())]
    for number in (user.gid, user.gid + 1):
        ids = ["--reuid", str(number), "--regid", str(number), "--clear-groups", "--inh-caps=-all"]
        words = ["setpriv", *ids, "--", "sh", "-c", 'exec "$@"', "sh", *census]
        done = subprocess.run(words, capture_output=True, cwd="/")
        if number == user.gid:
            assert done.stdout.startswith(b"VMACENS"), done.stderr
        else:
            assert b"Permission denied" in done.stderr and not done.stdout
    shutil.rmtree(directory)


@AS_ROOT
def test_what_was_made_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANONVMA_RUNS", str(tmp_path / "runs"))
    made, outside = tmp_path / "made", tmp_path / "outside"
    (made / "exports").mkdir(parents=True)
    (made / "exports" / "x.csv").write_text("1")
    outside.write_text("mine")
    (made / "exports" / "link").symlink_to(outside)
    for path in (made / "exports", made / "exports" / "x.csv", outside):
        os.chown(path, 61191, 61191)
    (tmp_path / "runs" / "exports").mkdir(parents=True)
    lab._keep(made)
    assert (tmp_path / "runs" / "exports-2" / "x.csv").read_text() == "1"
    assert (tmp_path / "runs" / "exports-2" / "x.csv").stat().st_uid == 0
    assert outside.stat().st_uid == 61191  # not by way of a link
    assert "exports-2" in capsys.readouterr().err


def test_ordinary_user_cannot_become_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError, match="only root can become another user"):
        lab.run(user="nobody")


def test_directories_of_the_dead_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONVMA_BUILD", str(tmp_path))
    (tmp_path / "lab-dead").mkdir()
    with lab._directory() as mine:
        assert not (tmp_path / "lab-dead").exists()
        with lab._directory() as other:
            assert mine.exists() and other.exists() and mine != other
    assert not list(tmp_path.iterdir())
