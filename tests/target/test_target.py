# SPDX-License-Identifier: GPL-2.0-only
"""target.target: what it runs dies with us, what it changes goes back, whoever is killed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
import tools
from waiting import PATIENCE, until

from anonvma.base.errors import TargetError, TargetTimeout
from anonvma.collect.targets import parse
from anonvma.target import local as local_module
from anonvma.target import target as target_module
from anonvma.target.local import Local

# A program that leaves the process group, the session and its parent behind.
TREE = "sleep 90 & setsid sleep 90 & (setsid sh -c 'sleep 90 & sleep 90' &) ; echo up; sleep 90"

SYSCTL = "fs.aio-max-nr"  # one whose value hardly anyone minds for a second
SYSCTL_FILE = Path("/proc/sys/fs/aio-max-nr")

pytestmark = pytest.mark.xdist_group("aio-max-nr")  # which both change: SYSCTL
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def target() -> Iterator[Local]:
    with Local() as local:
        yield local


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    value = processes.new_token()
    monkeypatch.setenv(processes.VARIABLE, value)
    return value


@pytest.fixture
def privileged(target: Local) -> Local:
    try:
        target.require_privilege()
    except TargetError as error:
        pytest.skip(str(error))
    return target


def script(source: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_kinds_of_targets() -> None:
    with parse("local") as local:
        assert local.name == "local"
    with pytest.raises(TargetError, match="'' cannot be the name of a host"):
        parse("ssh:")
    with pytest.raises(TargetError, match="'lokal' is not known: did you mean 'local'"):
        parse("lokal")


def test_a_command_gets_words_and_gives_status_and_output(target: Local) -> None:
    done = target.run(["printf", "%s|", "$(id)", "a b", ";", "*"])
    assert (done.returncode, done.stdout) == (0, b"$(id)|a b|;|*|")
    done = target.run(["sh", "-c", "cat; echo no >&2; exit 7"], input=b"in")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"in", b"no\n")
    assert target.run(["sh", "-c", "kill -SEGV $$"]).returncode == -signal.SIGSEGV
    assert target.run(["sh", "-c", "kill -KILL $$"]).returncode == -signal.SIGKILL


def test_a_command_sees_our_environment_directory_and_default_signals(
    token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Local() as target:
        said = target.run(["sh", "-c", f"pwd; echo ${processes.VARIABLE}"]).stdout
        assert said.decode().split() == [str(tmp_path), token]
        status = target.run(["cat", "/proc/self/status"]).stdout.decode()
    ignored = next(x for x in status.splitlines() if x.startswith("SigIgn"))
    standard = (1 << 31) - 1  # whoever started us may ignore a real-time one, as make does
    assert int(ignored.split()[1], 16) & standard == 0


def test_what_cannot_be_run_is_one_sentence(target: Local, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="there is no program 'no-such-thing'"):
        target.run(["no-such-thing"])
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    done = target.run([str(broken)])
    assert done.returncode == 127
    assert done.stderr.startswith(b"cannot run ")


def test_a_command_that_takes_too_long_is_stopped(token: str) -> None:
    with Local() as target:
        with pytest.raises(TargetTimeout, match=r"sh did not finish within 0\.2 s"):
            target.run(["sh", "-c", TREE], timeout=0.2)
        assert processes.survivors(token, 0) == []


def test_the_work_directory_is_private_and_goes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "tool").write_text("#!/bin/sh\necho one\n")
    (tmp_path / "tool").write_text("#!/bin/sh\necho two\n")
    with Local() as target:
        one, two = target.push(tmp_path / "a" / "tool"), target.push(tmp_path / "tool")
        assert target.push(tmp_path / "tool") == two != one
        work = Path(one).parent
        assert stat.S_IMODE(work.stat().st_mode) == 0o700
        assert work.parent == Path(tempfile.gettempdir())
        assert target.run([one]).stdout + target.run([two]).stdout == b"one\ntwo\n"
        output = target.place("output")
        target.run(["cp", "/proc/version", output])
        target.pull(output, tmp_path / "version")
        assert not Path(output).exists()
        with pytest.raises(TargetError, match=r"cannot bring back .*output"):
            target.pull(output, tmp_path / "version")
        with pytest.raises(TargetError, match="cannot read /nowhere: No such file"):
            target.read("/nowhere")
        with pytest.raises(TargetError, match="cannot copy /nowhere"):
            target.push(Path("/nowhere"))
    assert not work.exists()
    assert (tmp_path / "version").read_bytes() == Path("/proc/version").read_bytes()


def test_a_missing_directory_for_the_work_directory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(TargetError, match=r"cannot make a work directory in .*/missing: No such"):
        Local()


OPEN = """
from anonvma.base.errors import TargetError
from anonvma.target.local import Local
try:
    Local()
except TargetError as error:
    print(error)
"""


@needs_root
def test_a_directory_that_forbids_execution_is_named(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o noexec none "$TMPDIR"'
    done = processes.in_namespace(mount, [sys.executable, "-c", OPEN], TMPDIR=str(tmp_path))
    assert done.stdout == (
        f"{tmp_path} is mounted noexec, so no program can be run from there; "
        "set TMPDIR to another directory.\n"
    )


DIE = """
import os, signal, sys
from anonvma.target.local import Local
target = Local()
print(target.place(""), flush=True)
sys.stdin.read()
"""


def test_work_directories_of_the_dead_are_removed_and_of_the_living_kept() -> None:
    living, dying = script(DIE), script(DIE)
    with living, dying:
        assert living.stdout and dying.stdout
        kept, left = (Path(p.stdout.readline().strip()) for p in (living, dying) if p.stdout)
        dying.kill()
        dying.wait()
        assert left.is_dir()
        Local().close()
        assert not left.exists()
        assert kept.is_dir()
        living.kill()
        living.wait()
    Local().close()
    assert not kept.exists()


def test_stopping_a_command_stops_all_it_started(token: str) -> None:
    with Local() as target:
        with target.start(["sh", "-c", TREE]):
            processes.wait_for(token, 7)  # its keeper too
        assert processes.survivors(token, 0) == []


def test_what_a_command_leaves_behind_is_ended(token: str) -> None:
    with Local() as target:
        done = target.run(["sh", "-c", "(setsid sleep 90 >/dev/null 2>&1 &); exit 3"])
        assert done.returncode == 3
        assert processes.survivors(token, 0) == []


def test_closing_the_target_stops_its_commands(token: str) -> None:
    with Local() as target:
        process = target.start(["sh", "-c", TREE])
        processes.wait_for(token, 7)
    # Which of the two is killed first, the command or its supervisor, is for the kernel to say.
    assert process.wait(PATIENCE) in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert processes.survivors(token) == []


def test_a_killed_keeper_does_not_free_its_command(token: str) -> None:
    with Local() as target, target.start(["sh", "-c", "sleep 90 & sleep 90"]) as process:
        processes.wait_for(token, 4)
        process._popen.kill()
    assert processes.survivors(token) == []


def test_a_killed_keeper_takes_its_command_along(token: str) -> None:
    with Local() as target, target.start(["sleep", "90"]) as process:
        processes.wait_for(token, 2)
        process._popen.kill()
        assert processes.survivors(token) == []


def test_a_keeper_that_finds_us_dead_runs_nothing(tmp_path: Path) -> None:
    lifeline = tmp_path / "lifeline"
    os.mkfifo(lifeline)
    keeper = [
        sys.executable,
        "-I",
        "-S",
        str(Path(target_module.__file__).with_name("supervisor.py")),
    ]
    done = subprocess.run(
        [*keeper, str(lifeline), "", "touch", str(tmp_path / "touched")],
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 127
    assert not (tmp_path / "touched").exists()


RUN_TREE = """
import sys
from anonvma.target.local import Local
target = Local()
print("ready", flush=True)
target.run(["sh", "-c", sys.argv[1]])
"""


@pytest.mark.parametrize("delay", [0, 0.003, 0.01, 0.02, 0.03, 0.05, 0.3])
def test_killing_us_kills_all_we_started(delay: float) -> None:
    token = processes.new_token()
    with script(RUN_TREE, TREE, **{processes.VARIABLE: token}) as ours:
        assert ours.stdout
        ours.stdout.readline()
        time.sleep(delay)
        ours.kill()
        ours.wait()
        assert processes.survivors(token) == []


def test_facts_name_neither_the_machine_nor_its_user(target: Local) -> None:
    facts = target.facts()
    assert facts["kernel_release"] == os.uname().release
    assert facts["cpus"] == os.sysconf("SC_NPROCESSORS_ONLN")
    assert facts["page_size"] == os.sysconf("SC_PAGESIZE")
    assert abs(facts["memory_bytes"] - os.sysconf("SC_PHYS_PAGES") * facts["page_size"]) < 1 << 20
    assert set(facts) == {
        *("kind", "kernel_release", "architecture", "cpus", "cpu_model", "memory_bytes"),
        *("page_size", "thp", "overcommit_memory", "max_map_count"),
        *("config", "config_sha256"),
    }
    if Path("/proc/config.gz").exists():
        text = subprocess.run(["zcat", "/proc/config.gz"], capture_output=True, check=True).stdout
        assert facts["config_sha256"] == hashlib.sha256(text).hexdigest()
        is_set = b"\nCONFIG_PER_VMA_LOCK=y\n" in text
        assert facts["config"]["PER_VMA_LOCK"] == ("y" if is_set else "n")


# ---- sysctls ----


def present() -> int:
    return int(SYSCTL_FILE.read_text())


def wait_for_value(value: int) -> None:
    until(lambda: present() == value, present)


@pytest.fixture
def old() -> Iterator[int]:
    value = present()
    yield value
    assert present() == value


def test_a_sysctl_is_raised_and_put_back(privileged: Local, old: int) -> None:
    with pytest.raises(ZeroDivisionError), privileged.sysctl_at_least(SYSCTL, old + 5) as raised:
        assert (raised.old, raised.new, present()) == (old, old + 5, old + 5)
        raise ZeroDivisionError
    assert raised.note is None


def test_a_sysctl_that_is_high_enough_is_left_alone(target: Local, old: int) -> None:
    with target.sysctl_at_least(SYSCTL, old) as raised:
        assert (raised.old, raised.new) == (old, old)


def test_a_sysctl_that_someone_else_changed_is_left_to_them(privileged: Local, old: int) -> None:
    with privileged.sysctl_at_least(SYSCTL, old + 5) as raised:
        privileged.run(["sysctl", "-q", f"{SYSCTL}={old + 9}"], privileged=True)
    assert present() == old + 9
    assert raised.note == (
        f"{SYSCTL} was {old}, this run raised it to {old + 5}, someone else set it to {old + 9} "
        "meanwhile, and so it was left at that."
    )
    privileged.run(["sysctl", "-q", f"{SYSCTL}={old}"], privileged=True)


def test_a_sysctl_that_cannot_be_raised_is_one_sentence(privileged: Local) -> None:
    with (
        pytest.raises(TargetError, match=r"cannot raise kernel\.pid_max to 99999999: .*Invalid"),
        privileged.sysctl_at_least("kernel.pid_max", 99999999),
    ):
        pass
    for name in ("vm.no_such_thing", "vm.../../x", "vm", "$(id).x"):
        with pytest.raises(TargetError, match=r"no sysctl|not the name of"):
            privileged.sysctl_at_least(name, 1).__enter__()


RAISE = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup has all ignore that it starts
from anonvma.target.local import Local
with Local() as target, target.sysctl_at_least(sys.argv[1], int(sys.argv[2])):
    print("raised", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_killing_us_puts_a_sysctl_back(privileged: Local, old: int, number: int) -> None:
    token = processes.new_token()
    with script(RAISE, SYSCTL, str(old + 5), **{processes.VARIABLE: token}) as ours:
        assert ours.stdout and ours.stdout.readline()
        assert present() == old + 5
        ours.send_signal(number)
        ours.wait()
        wait_for_value(old)
        assert processes.survivors(token) == []


def test_signals_to_the_guardian_do_not_keep_it_from_its_duty(
    privileged: Local, old: int, token: str
) -> None:
    with privileged.sysctl_at_least(SYSCTL, old + 5):
        (guardian,) = (line for line in processes.carriers(token) if " raise " in line)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            privileged.run(["kill", f"-{number}", guardian.split()[0]], privileged=True)


def test_killing_our_process_group_puts_a_sysctl_back(privileged: Local, old: int) -> None:
    ours = subprocess.Popen(
        [sys.executable, "-c", RAISE, SYSCTL, str(old + 5)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with ours:
        assert ours.stdout and ours.stdout.readline()
        os.killpg(ours.pid, signal.SIGKILL)
        wait_for_value(old)


def test_two_runs_do_not_put_back_each_other_s_values(
    privileged: Local, old: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_module, "_PATIENCE_MS", 200)
    with script(RAISE, SYSCTL, str(old + 5)) as other:
        assert other.stdout and other.stdout.readline()
        with (
            pytest.raises(TargetError, match=f"process {other.pid} still has it raised"),
            privileged.sysctl_at_least(SYSCTL, old + 1),
        ):
            pass
        # What was enough before the other came is enough when it is gone.
        with privileged.sysctl_at_least(SYSCTL, old - 1) as raised:
            assert raised.new == old + 5
        other.kill()
    wait_for_value(old)


def test_a_guardian_that_is_killed_leaves_nothing_raised(
    privileged: Local, old: int, token: str
) -> None:
    """At once where we still are, and by whoever comes next where we are not; both say so."""
    with privileged.sysctl_at_least(SYSCTL, old + 5) as raised:
        (guardian,) = (line for line in processes.carriers(token) if " raise " in line)
        privileged.run(["kill", "-KILL", guardian.split()[0]], privileged=True)
    assert present() == old and raised.note and "was killed" in raised.note
    with script(RAISE, SYSCTL, str(old + 5), **{processes.VARIABLE: token}) as other:
        assert other.stdout and other.stdout.readline()
        (guardian,) = (line for line in processes.carriers(token) if " raise " in line)
        privileged.run(["kill", "-KILL", guardian.split()[0]], privileged=True)
        other.kill()
    assert present() == old + 5
    with privileged.sysctl_at_least(SYSCTL, old - 1) as raised:  # it is high enough as it is
        assert present() == old == raised.new
    assert any(f"had left {SYSCTL} at {old + 5}" in note for note in privileged.notes)


def test_nobody_else_can_hold_the_lock(privileged: Local, old: int) -> None:
    """A lock on the sysctl's own file, which anybody can open, is nobody's business."""
    with open("/proc/sys/" + SYSCTL.replace(".", "/"), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with privileged.sysctl_at_least(SYSCTL, old + 5):
            assert present() == old + 5
        with privileged.sysctl_at_least(SYSCTL, old - 1):
            pass
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    listed = privileged.run([*nobody, "ls", "/run/anonvma"], privileged=True)
    assert listed.returncode and b"ermission" in listed.stderr


# ---- privilege ----

AS_NOBODY = [
    shutil.which("setpriv") or "setpriv",
    "--reuid",
    "65534",
    "--regid",
    "65534",
    "--init-groups",
]
# Only so that the interpreter and the package can be read where they lie under a private home.
AS_NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"]

PRIVILEGE = """
from anonvma.base.errors import PrivilegeError
from anonvma.target.local import Local
with Local() as target:
    try:
        target.require_privilege()
    except PrivilegeError as error:
        print(error)
    else:
        print(target.run(["id", "-u"], privileged=True).stdout.decode().strip(), end=" ")
        done = target.run([*target.as_caller(), "id", "-u"], privileged=True)
        print(done.stdout.decode().strip(), end=" ")
        done = target.run([*target.as_caller(), "printenv", "SECRET"], privileged=True)
        print(done.stdout.decode().strip(), end=" ")
        with target.sysctl_at_least("fs.aio-max-nr", 1 << 20) as raised:
            print(target.read("/proc/sys/fs/aio-max-nr").decode().strip(), end=" ")
        print(raised.note)
"""


def as_nobody(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AS_NOBODY, sys.executable, "-c", PRIVILEGE],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@needs_root
def test_without_sudo_the_sentence_says_what_is_lacking(tmp_path: Path) -> None:
    done = as_nobody(PATH=str(tmp_path))
    assert done.stdout.startswith("observing VMAs needs privilege, and this user is not root and")
    assert done.stdout.count("\n") == 1


# In a mount namespace of its own, the user nobody has a place to write.
WRITABLE = 'mount -t tmpfs -o mode=1777 none "$TMPDIR"'


@needs_root
def test_with_a_sudo_that_asks_the_sentence_says_what_is_lacking(tmp_path: Path) -> None:
    argv = [*AS_NOBODY, sys.executable, "-c", PRIVILEGE]
    done = processes.in_namespace(tools.lay() + WRITABLE, argv, TMPDIR=str(tmp_path))
    assert "sudo does not give it without a password (sudo: a password is required)" in done.stdout
    assert done.stdout.count("\n") == 1


# ... and may use sudo.
SUDOERS = f"""
echo 'nobody ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/test
chmod 440 /etc/sudoers.d/test
{WRITABLE}
"""


@needs_root
def test_with_sudo_only_what_needs_it_is_privileged(old: int, tmp_path: Path) -> None:
    argv = [*AS_NOBODY, sys.executable, "-c", PRIVILEGE]
    done = processes.in_namespace(
        tools.lay() + SUDOERS, argv, TMPDIR=str(tmp_path), SECRET="of the user"
    )
    raised = max(old, 1 << 20)
    assert done.stdout == f"0 65534 of the user {raised} None\n", done.stderr


KILLED_UNDER_SUDO = """
import os, signal, sys, threading
from anonvma.target.local import Local
target = Local()
threading.Timer(float(sys.argv[2]), os.kill, [os.getpid(), signal.SIGKILL]).start()
with target.sysctl_at_least("fs.aio-max-nr", int(sys.argv[3])):
    target.run([*target.as_caller(), "sh", "-c", sys.argv[1]], privileged=True)
"""


@needs_root
@pytest.mark.parametrize("delay", [0.02, 0.05, 0.08, 0.5])
def test_killing_us_kills_what_runs_under_sudo(
    delay: float, old: int, token: str, tmp_path: Path
) -> None:
    argv = [sys.executable, "-c", KILLED_UNDER_SUDO, TREE, str(delay), str(old + 5)]
    done = processes.in_namespace(tools.lay() + SUDOERS, [*AS_NOBODY, *argv], TMPDIR=str(tmp_path))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert processes.survivors(token) == []
    wait_for_value(old)
