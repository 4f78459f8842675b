# SPDX-License-Identifier: GPL-2.0-only
"""anonvma.target.ssh on real sshds: what it promises, whoever is killed and whatever is refused."""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hosts
import pytest
from hosts import Host
from waiting import PATIENCE, until

from anonvma.base import paths
from anonvma.base.errors import AnonvmaError, PrivilegeError, TargetError, TargetLost, TargetTimeout
from anonvma.collect.targets import parse
from anonvma.target import ssh as ssh_module
from anonvma.target.ssh import Ssh
from anonvma.target.ssh_host import check_host
from anonvma.target.target import Target

pytestmark = [pytest.mark.usefixtures("build"), pytest.mark.xdist_group("aio-max-nr")]

SYSCTL = "fs.aio-max-nr"  # one whose value hardly anyone minds for a second
SYSCTL_FILE = Path("/proc/sys/fs/aio-max-nr")
TREE = "sleep 90 & setsid sleep 90 & (setsid sh -c 'sleep 90 & sleep 90' &) ; echo up; sleep 90"
ANYTHING = "alice ALL=(root) NOPASSWD: ALL"


@pytest.fixture(scope="module", autouse=True)
def keys() -> Iterator[None]:
    yield
    hosts.remove_keys()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host whose user may use sudo."""
    with hosts.host(tmp_path_factory.mktemp("hosts") / "box", sudoers=ANYTHING) as host:
        yield host
        assert host.leftovers() == []


@pytest.fixture
def target(box: Host) -> Iterator[Target]:
    with parse(box.target()) as there:
        yield there
    assert box.leftovers() == []


@pytest.fixture
def old() -> Iterator[int]:
    value = present()
    yield value
    wait_for_value(value)


def present() -> int:
    return int(SYSCTL_FILE.read_text())


def wait_for_value(value: int) -> None:
    until(lambda: present() == value, present)


def script(source: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# ---- commands ----


def test_a_command_gets_words_and_gives_status_and_output(target: Target) -> None:
    done = target.run(["printf", "%s|", "$(id)", "a b", ";", "*", "it's", "\n"])
    assert (done.returncode, done.stdout) == (0, b"$(id)|a b|;|*|it's|\n|")
    done = target.run(["sh", "-c", "cat; echo no >&2; exit 7"], input=b"in\0" * 40000)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"in\0" * 40000, b"no\n")
    assert target.run(["sh", "-c", "kill -SEGV $$"]).returncode == -signal.SIGSEGV
    with pytest.raises(TargetError, match="there is no program 'no-such-thing' on the target"):
        target.run(["no-such-thing"])
    with pytest.raises(TargetError, match="there is no program '/no/such/thing'"):
        target.run(["/no/such/thing"])


def test_a_command_has_the_user_s_environment_without_where_he_sits(target: Target) -> None:
    said = target.run(["env"]).stdout.decode()
    assert f"HOME={hosts.HOME}\n" in said
    assert "USER=alice\n" in said
    assert "SSH_" not in said and "SUDO_" not in said
    assert target.run(["sh", "-c", "umask"]).stdout == b"0022\n"
    status = target.run(["cat", "/proc/self/status"]).stdout.decode()
    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn"))
    assert int(ignored.split()[1], 16) & ((1 << 31) - 1) == 0


def test_a_command_that_takes_too_long_is_stopped_with_all_it_started(
    box: Host, target: Target
) -> None:
    before = set(box.processes())
    with pytest.raises(TargetTimeout, match=r"sh did not finish within 0\.5 s"):
        target.run(["sh", "-c", TREE], timeout=0.5)
    assert set(box.processes()) <= before
    done = target.run(["sh", "-c", "(setsid sleep 90 >/dev/null 2>&1 &); exit 3"], privileged=True)
    assert done.returncode == 3
    assert set(box.processes()) <= before


# ---- files ----


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 70001])
def test_the_agent_s_hash_is_sha_256(size: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(size))
    said = subprocess.run(
        [paths.program("anonvma-agent"), "hash", file], capture_output=True, check=True
    ).stdout
    assert said.decode() == hashlib.sha256(file.read_bytes()).hexdigest() + "\n"


def test_files_are_copied_once_and_checked(
    box: Host, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\necho one\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tool").write_text("#!/bin/sh\necho two\n")
    one, two = target.push(tmp_path / "tool"), target.push(tmp_path / "b" / "tool")
    assert one != two
    monkeypatch.setattr(Ssh, "_put", None)  # a second time nothing is sent
    assert target.push(tmp_path / "tool") == one
    assert target.run([one]).stdout + target.run([two]).stdout == b"one\ntwo\n"
    assert box.path(one).stat().st_mode & 0o777 == 0o700
    work = box.path(str(Path(one).parent))
    assert work.stat().st_mode & 0o777 == 0o700
    assert work.stat().st_uid == hosts.UID


def test_what_a_privileged_command_has_made_comes_back(target: Target, tmp_path: Path) -> None:
    output = target.place("output")
    made = ["sh", "-c", f"umask 077; head -c 3000001 /dev/urandom >{output}; sha256sum <{output}"]
    digest = target.run(made, privileged=True).stdout.split()[0].decode()
    target.pull(output, tmp_path / "output")
    assert hashlib.sha256((tmp_path / "output").read_bytes()).hexdigest() == digest
    assert not target.exists(output)
    with pytest.raises(TargetError, match=r"cannot bring back .*output: No such file"):
        target.pull(output, tmp_path / "output")
    assert not (tmp_path / "output").exists()
    with pytest.raises(TargetError, match="cannot read /nowhere: No such file"):
        target.read("/nowhere")
    assert target.read("/proc/version") == Path("/proc/version").read_bytes()


def test_a_full_disk_is_seen_when_something_is_copied(box: Host, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3 << 20))
    inside(box, "mount -o remount,size=2m /tmp")
    try:
        with (
            parse(box.target("root")) as there,
            pytest.raises(TargetError, match=r"cannot write .*/big on the target: No space left"),
        ):
            there.push(tmp_path / "big")
    finally:
        inside(box, "mount -o remount,size=50% /tmp")


def test_a_directory_that_forbids_execution_is_passed_over(box: Host) -> None:
    inside(box, "mount -o remount,noexec /tmp")
    try:
        with parse(box.target("root")) as there:
            assert there.place("x").startswith("/var/tmp/anonvma-agent.")
            kept = Path(there.place("x")).parent
        assert not box.path(str(kept)).exists()
    finally:
        inside(box, "mount -o remount,exec /tmp")


def inside(host: Host, line: str) -> None:
    subprocess.run(["nsenter", f"--mount=/proc/{host.init}/ns/mnt", "sh", "-c", line], check=True)


def test_facts_say_how_it_was_reached_and_not_where(box: Host, target: Target) -> None:
    facts = target.facts()
    assert facts["kind"] == "ssh"
    assert facts["kernel_release"] == os.uname().release
    assert facts["link_round_trip_s"] > 0
    said = repr((facts, target.notes, target.name, target.logs()))
    assert "reached over ssh" in said
    for name in (
        box.hostname,
        box.alias,
        box.address,
        str(box.port),
        "alice",
        socket.gethostname(),
    ):
        assert name not in said


# ---- names ----


@pytest.mark.parametrize(
    "name",
    [
        *("", "-oProxyCommand=touch MARK", "-F/etc/passwd", "--", "a b", "a;b", "a\nb", "a\tb"),
        *(
            "$(touch MARK)",
            "`touch MARK`",
            "a|b",
            "a&b",
            "a'b",
            'a"b',
            "a\\b",
            "a*",
            "a?",
            "~",
            "!",
        ),
        *("-oProxyCommand=x@host", "user@-oProxyCommand=x", "user@", "@host", "a@b@c", "\x1b[2Jx"),
        *("ssh://-oProxyCommand=x", "ssh://host:port", "ssh://u@h/path", "h\0", "héte", "h" * 300),
        *("user;id@host", "%h", "h{a,b}", "h<x", "h>x", "h#x", "[::1", "h\u202ex"),
        *("ssh://[::1]:22", "ssh://::1"),
    ],
)
def test_a_name_that_is_none_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # were it to run ssh, it would find none
    with pytest.raises(TargetError, match="cannot be the name of a host") as caught:
        parse(f"ssh:{name.replace('MARK', str(tmp_path / 'mark'))}")
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        *(
            "host",
            "user@host",
            "a.b-c_d.example",
            "10.1.2.3",
            "root@10.1.2.3",
            "fe80::1%eth0",
            "::1",
        ),
        *("ssh://host", "ssh://user@host:2222"),
    ],
)
def test_a_name_that_is_one_is_taken(name: str) -> None:
    assert check_host(name) == name
    # and ssh itself takes it for a name, or for a URI of one
    done = subprocess.run(
        ["ssh", "-G", "-F", "/dev/null", "--", name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("sudo=please", "sudo 'please' is not known: use yes or no"),
        ("probe=vmaprobe", "is not a path on the target"),
        ("patience=1", "patience '1' is not a whole number of seconds, 2 or more"),
        ("wait=-1", "wait '-1' is not a whole number of seconds, 0 or more"),
        ("config=/nowhere", "there is no ssh configuration /nowhere"),
        ("port=22", "port is not known: an ssh target takes sudo, probe, config, patience, wait"),
        ("wait=1,wait=2", "wait is given twice"),
    ],
)
def test_an_option_that_is_none_is_refused(options: str, sentence: str) -> None:
    with pytest.raises(TargetError, match=sentence):
        parse(f"ssh:host,{options}")


def test_a_missing_ssh_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetError, match="needs ssh, which is not here: install"):
        parse("ssh:host")


# ---- refusals ----


def refused(target: str, kind: type[AnonvmaError] = TargetError) -> str:
    with pytest.raises(TargetError) as caught:
        parse(target)
    assert type(caught.value) is kind
    assert str(caught.value).count("\n") == 0 and str(caught.value).endswith(".")
    return str(caught.value)


def test_each_refusal_is_a_sentence_with_its_remedy(box: Host, tmp_path: Path) -> None:
    text = box.config.read_text()

    def altered(old: str, new: str) -> str:
        config = tmp_path / "config"
        config.write_text(text.replace(old, new))
        return box.target(config=config)

    known = box.directory / "known"
    stranger = hosts.key("stranger.pub").read_text()
    (tmp_path / "changed").write_text(known.read_text().split(" ")[0] + " " + stranger)
    assert "the key of alice@box is not the one that is known here" in refused(
        altered(str(known), str(tmp_path / "changed"))
    )
    assert "is not known here: connect once by 'ssh alice@box'" in refused(
        altered(str(known), "/dev/null")
    )
    assert "does not let this user in without asking" in refused(
        altered(str(hosts.key("user")), str(hosts.key("stranger")))
    )
    assert "there is no host alice@box" in refused(
        altered(f"HostName {box.address}", "HostName nowhere.invalid")
    )
    assert "make sure that sshd runs there, on that port" in refused(
        altered(f"Port {box.port}", f"Port {hosts.free_port()}"), TargetLost
    )
    assert "no connection to alice@box" in refused(altered("Host box", "Nonsense yes\nHost box"))


def test_a_host_that_accepts_and_then_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = tmp_path / "config"
        config.write_text(f"Host box\nHostName 127.0.0.1\nPort {silent.getsockname()[1]}\n")
        said = refused(f"ssh:box,config={config},patience=2", TargetLost)
    assert said.startswith("box does not answer")


SHELLS = {
    "silent": ("echo hello from a start-up file; echo more", None),
    "endless": ("yes", "says too much before it runs a command"),
    "another machine": ("uname() { echo VAX; }", None),
    "no shell": ("exit 1", "no connection to"),
}


@pytest.mark.parametrize("name", SHELLS)
def test_what_a_login_shell_says_first_is_passed_over(name: str, tmp_path: Path) -> None:
    line, sentence = SHELLS[name]
    forced = f'ForceCommand {line}; eval "$SSH_ORIGINAL_COMMAND"'
    with hosts.host(tmp_path / "host", sshd_config=forced) as host:
        if sentence:
            assert sentence in refused(host.target())
        else:
            parse(host.target()).close()
        host.wait_until_clean()


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    forced = "SetEnv PATH=/run/host/bin:/usr/bin:/bin"
    with hosts.host(tmp_path / "host", sshd_config=forced) as host:
        fake = host.path("/run/host/bin/uname")
        fake.write_text("#!/bin/sh\n[ $1 = -s ] && echo Linux || echo vax\n")
        fake.chmod(0o755)
        assert "runs Linux on vax; the programs here were built for Linux on" in refused(
            host.target()
        )
        host.wait_until_clean()


# ---- the user's own configuration ----


def test_a_configuration_for_people_does_no_harm(box: Host, tmp_path: Path) -> None:
    mark, control = tmp_path / "mark", tmp_path / "control"
    config = tmp_path / "config"
    config.write_text(
        f"Host box\nRequestTTY force\nRemoteCommand cat\nForwardX11 yes\nForwardAgent yes\n"
        f"PermitLocalCommand yes\nLocalCommand touch {mark}\nLocalForward 1 localhost:1\n"
        f"ControlMaster auto\nControlPersist 60\nControlPath {control}\nLogLevel DEBUG3\n"
        f"{box.config.read_text()}"
    )
    with parse(box.target(config=config)) as there:
        assert there.run(["tty"]).stdout == b"not a tty\n"
        # A master would have been there longer than we are.
        assert not control.exists()
    assert not mark.exists()
    # A master that is there already is used.
    words = ["ssh", "-F", str(config), "-o", "ControlMaster=yes", "-o", "RemoteCommand=none"]
    words += ["-o", "ClearAllForwardings=yes", "-o", "LogLevel=ERROR", "-T", "-N", "box"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as master:
        until(control.exists)
        logins = box.log().count("Accepted publickey")
        with parse(box.target(config=config)) as there:
            assert there.run(["echo", "by the master"]).stdout == b"by the master\n"
        assert box.log().count("Accepted publickey") == logins
        master.terminate()


def test_a_jump_host_is_jumped_over(box: Host, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host far\nHostName {box.address}\nPort {box.port}\nProxyJump box\n\n"
        f"{box.config.read_text()}"
    )
    logins = box.log().count("Accepted publickey")
    with parse(f"ssh:root@far,config={config}") as there:
        assert there.run(["id", "-u"]).stdout == b"0\n"
    assert box.log().count("Accepted publickey") == logins + 2


# ---- privilege ----


def test_root_needs_nothing(box: Host) -> None:
    with parse(box.target("root")) as there:
        there.require_privilege()
        assert there.as_caller() == []
        assert there.facts()["privilege"] == "root"
        assert there.run(["id", "-u"], privileged=True).stdout == b"0\n"


def test_with_sudo_only_what_needs_it_is_privileged(target: Target) -> None:
    target.require_privilege()
    assert target.facts()["privilege"] == "sudo"
    who = ["sh", "-c", "id -u; id -G; echo $HOME"]
    assert target.run(who).stdout == f"4242\n4242\n{hosts.HOME}\n".encode()
    assert target.run(who, privileged=True).stdout == f"0\n0\n{hosts.HOME}\n".encode()
    inside_it = target.run([*target.as_caller(), *who], privileged=True)
    assert inside_it.stdout == f"4242\n4242\n{hosts.HOME}\n".encode()


def test_sudo_may_be_limited_to_the_agent_of_this_build(tmp_path: Path) -> None:
    digest = hashlib.sha256(paths.program("anonvma-agent").read_bytes()).hexdigest()
    rule = f"alice ALL=(root) NOPASSWD: sha256:{digest} ALL"
    with hosts.host(tmp_path / "host", sudoers=rule) as host:
        with parse(host.target()) as there:
            assert there.run(["id", "-u"], privileged=True).stdout == b"0\n"
            # ... and sudo gives the user nothing else
            assert there.run(["sudo", "-n", "id", "-u"]).returncode
        host.wait_until_clean()


@pytest.mark.parametrize(
    ("sudoers", "options", "sentence"),
    [
        ("", {}, "sudo does not give it (sudo: a password is required)"),
        ("", {"sudo": "no"}, "sudo is not to be asked"),
        (f"Defaults requiretty\n{ANYTHING}", {}, "you must have a tty"),
    ],
)
def test_without_privilege_the_sentence_says_what_is_lacking(
    sudoers: str, options: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    with hosts.host(tmp_path / "host", sudoers=sudoers) as host:
        with parse(host.target(**options)) as there:
            with pytest.raises(PrivilegeError) as caught:
                there.require_privilege()
            assert sentence in str(caught.value)
            with pytest.raises(PrivilegeError):
                there.run(["id"], privileged=True)
            assert there.run(["id", "-u"]).stdout == b"4242\n"
            assert there.facts()["privilege"] == "none"
        host.wait_until_clean()


CAPABILITIES = "cap_bpf,cap_perfmon,cap_sys_ptrace,cap_syslog,cap_dac_read_search+ep"


def test_a_probe_with_capabilities_does_without_root(box: Host, tmp_path: Path) -> None:
    if shutil.which("setcap") is None:
        pytest.skip("setcap is not installed (package libcap2-bin)")
    probe = box.path("/run/host/vmaprobe")
    shutil.copy(paths.program("vmaprobe"), probe)
    subprocess.run(["setcap", CAPABILITIES, probe], check=True)
    assert CAPABILITIES.partition("+")[0] in ssh_module.__doc__  # type: ignore[operator]
    with parse(box.target(probe="/run/host/vmaprobe")) as there:
        there.require_privilege()
        assert there.facts()["privilege"] == "capabilities"
        assert there.as_caller() == []
        assert there.run(["id", "-u"], privileged=True).stdout == b"4242\n"
        vmaprobe = there.push(paths.program("vmaprobe"))
        assert vmaprobe == "/run/host/vmaprobe"
        output = there.place("census")
        done = there.run([vmaprobe, "census", "--output", output], privileged=True)
        assert done.returncode == 0, done.stderr
        there.pull(output, tmp_path / "census")
        # of others' processes, too: sshd's is root's
        from anonvma.probe import census_file

        assert "sshd" in set(census_file.read(tmp_path / "census").vmas["comm"])
        with (
            pytest.raises(TargetError, match=r"cannot raise .*Permission denied; raise it there"),
            there.sysctl_at_least(SYSCTL, present() + 5),
        ):
            pass
    with probe.open("ab") as file:
        file.write(b"x")
    with (
        parse(box.target(probe="/run/host/vmaprobe")) as there,
        pytest.raises(TargetError, match="is not the vmaprobe that was built here"),
    ):
        there.push(paths.program("vmaprobe"))


# ---- settings ----


def test_a_sysctl_is_raised_and_put_back(target: Target, old: int) -> None:
    with pytest.raises(ZeroDivisionError), target.sysctl_at_least(SYSCTL, old + 5) as raised:
        assert (raised.old, raised.new, present()) == (old, old + 5, old + 5)
        raise ZeroDivisionError
    assert (raised.note, present()) == (None, old)
    with target.sysctl_at_least(SYSCTL, old) as raised:
        assert (raised.old, raised.new) == (old, old)
    with target.sysctl_at_least(SYSCTL, old + 5) as raised:
        SYSCTL_FILE.write_text(f"{old + 9}\n")
    assert present() == old + 9
    SYSCTL_FILE.write_text(f"{old}\n")
    assert raised.note is not None and f"someone else set it to {old + 9} meanwhile" in raised.note


def guard_of(host: Host) -> int:
    """The process on the host that has a sysctl raised: it holds the lock on what is noted."""
    note = Path("/proc", str(host.init), "root", "run/anonvma", SYSCTL.split(".")[-1])
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    (held,) = (int(words[4]) for words in locks if words[5].endswith(f":{note.stat().st_ino}"))
    return held


def test_what_a_killed_guard_leaves_raised_is_put_back(target: Target, box: Host, old: int) -> None:
    with target.sysctl_at_least(SYSCTL, old + 5) as raised:
        os.kill(guard_of(box), signal.SIGKILL)
    assert present() == old and raised.note and "was killed" in raised.note


def test_nobody_else_can_hold_up_those_who_have_privilege(box: Host, old: int) -> None:
    """Locks on files that anybody can open are nobody's business."""
    with contextlib.ExitStack() as held:
        for file in (SYSCTL_FILE, Path("/proc/version")):
            fcntl.flock(held.enter_context(file.open("rb")), fcntl.LOCK_EX)
        with parse(box.target("root", wait=0)) as there:
            with there.sysctl_at_least(SYSCTL, old + 5):
                assert present() == old + 5
            with there.sysctl_at_least(SYSCTL, old - 1):
                pass


# ---- endings ----

WORK = """
import sys
from anonvma.collect.targets import parse
with parse(sys.argv[1]) as there, there.sysctl_at_least(sys.argv[2], int(sys.argv[3])):
    with there.start(["sh", "-c", sys.argv[4]], privileged=True) as process:
        print(there.place(""), flush=True)
        process.wait()
"""


@pytest.fixture
def work(box: Host, old: int) -> Iterator[subprocess.Popen[str]]:
    """A session elsewhere, which has raised a sysctl and runs a tree of commands."""
    with script(WORK, box.target(patience=8), SYSCTL, str(old + 5), TREE) as session:
        assert session.stdout
        assert session.stdout.readline().startswith("/tmp/anonvma-agent.")
        assert present() == old + 5
        yield session
        session.kill()


def kill_all(pattern: str, host: Host) -> None:
    """Kill, on the host, whatever has this in its command line."""
    mine = os.readlink(f"/proc/{host.init}/ns/pid")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if os.readlink(process / "ns/pid") == mine and pattern in line:
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killing_us_leaves_nothing(
    box: Host, work: subprocess.Popen[str], old: int, number: int
) -> None:
    work.send_signal(number)
    work.wait()
    box.wait_until_clean()
    wait_for_value(old)


def test_our_standing_still_leaves_nothing(
    box: Host, work: subprocess.Popen[str], old: int
) -> None:
    work.send_signal(signal.SIGSTOP)
    box.wait_until_clean()
    wait_for_value(old)
    work.send_signal(signal.SIGCONT)
    assert work.wait() == 1
    assert work.stderr and "the ssh target is lost" in work.stderr.read()


def test_killing_the_connection_there_leaves_nothing(
    box: Host, work: subprocess.Popen[str], old: int
) -> None:
    kill_all(": alice", box)  # sshd: alice, or sshd-session: alice
    box.wait_until_clean()
    wait_for_value(old)
    assert work.wait() == 1
    assert work.stderr and "the connection was cut" in work.stderr.read()


def test_killing_the_serving_agent_leaves_nothing(
    box: Host, work: subprocess.Popen[str], old: int
) -> None:
    os.kill(agents_of(box)[1], signal.SIGKILL)
    box.wait_until_clean()
    wait_for_value(old)
    assert work.wait() == 1


def test_killing_both_agents_leaves_only_a_directory_for_the_next_to_remove(
    box: Host, work: subprocess.Popen[str], old: int
) -> None:
    for pid in agents_of(box):
        with contextlib.suppress(ProcessLookupError):  # the second dies of the first's death
            os.kill(pid, signal.SIGKILL)
    wait_for_value(old)
    assert work.wait() == 1
    until(lambda: not box.processes(), box.processes)
    (left,) = box.path("/tmp").iterdir()
    parse(box.target()).close()
    assert left.exists()  # for an hour: it might be on its way
    os.utime(left, (0, 0))
    parse(box.target()).close()
    assert not left.exists()


def agents_of(host: Host) -> tuple[int, int]:
    """The two processes of the one session there: what waits, and below it what serves."""
    mine = os.readlink(f"/proc/{host.init}/ns/pid")
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if os.readlink(process / "ns/pid") == mine and words[1:2] == [b"serve"]:
                stat = (process / "stat").read_bytes()
                parents[int(process.name)] = int(stat.rpartition(b")")[2].split()[1])
        except OSError:  # it ended meanwhile
            continue
    (top,) = (pid for pid, parent in parents.items() if parent not in parents)
    (server,) = (pid for pid, parent in parents.items() if parent == top)
    return top, server


CONNECT = """
import os, signal, sys, threading
from anonvma.collect.targets import parse
threading.Timer(float(sys.argv[2]), os.kill, [os.getpid(), signal.SIGKILL]).start()
with parse(sys.argv[1]) as there:
    there.run(["sh", "-c", sys.argv[3]])
"""


@pytest.mark.parametrize("delay", [0.1, 0.2, 0.3, 0.4, 0.5, 0.8])
def test_killing_us_while_we_connect_leaves_nothing(box: Host, delay: float) -> None:
    with script(CONNECT, box.target(), str(delay), TREE) as ours:
        ours.wait()
    box.wait_until_clean()


# ---- one at a time ----

HOLD = """
import sys
from anonvma.collect.targets import parse
with parse(sys.argv[1]) as there:
    print("mine", flush=True)
    with there.start(["sleep", "600"]):
        sys.stdin.read()
"""


def test_who_waits_is_told_and_comes_when_the_holder_is_dead(
    box: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    with script(HOLD, box.target()) as holder:
        assert holder.stdout and holder.stdout.readline() == "mine\n"
        with pytest.raises(TargetError, match="somebody else used the target all the 0 s"):
            parse(box.target("root", wait=0))
        # No name is told where it could be kept: this is no terminal.
        said = capsys.readouterr().err
        assert "waiting for the target: somebody has used it for 0 min (sleep runs now)." in said
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waiting = pool.submit(parse, box.target("root"))
            assert not concurrent.futures.wait([waiting], 2).done
            holder.kill()
            waiting.result(PATIENCE).close()
    box.wait_until_clean()


def test_a_name_is_told_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert ssh_module._holder(b"bob@desk 130 vmload") == ("bob@desk", 2, "vmload")
    assert ssh_module._holder(b"\x1b[2J 130 vmload") == ("somebody", 0, "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert ssh_module._holder(b"bob@desk 130 vm\x1bload") == ("somebody", 2, "vm load")


def test_under_contention_one_has_it_at_a_time(box: Host) -> None:
    alone = "mkdir /tmp/held && sleep 0.3 && rmdir /tmp/held"

    def use(user: str) -> int:
        with parse(box.target(user)) as there:
            return there.run(["sh", "-c", alone], privileged=True).returncode

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(use, ["alice", "root"] * 3)) == [0] * 6
    assert box.leftovers() == []
