# SPDX-License-Identifier: GPL-2.0-only
"""Hosts for tests: a real sshd each, in namespaces of its own.

Each has its own mounts (/tmp, /run, sshd and sudo, users, sudoers), processes, host name and, if
wanted, network: a veth pair to here. Nothing of this machine is changed but for the network's own
end. The host's process 1 is the namespace's: killing it is what pulling the plug is.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tools
from waiting import PATIENCE, until

USER = "alice"
UID = 4242
HOME = "/run/host/home"

# $1: a directory with sshd's files; $2: the host's name; $3: sudoers; $4 ...: sshd.
_PREPARE = f"""
cp -r "$1" /run/host
mkdir -m 755 /run/sshd /run/host/bin
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -m 700 {HOME}
chown {UID}:{UID} {HOME}
for file in passwd group shadow; do cp /etc/$file /run/host/; done
grep -q ^sshd: /etc/passwd || echo 'sshd:x:{UID + 1}:65534::/run/sshd:/bin/false' >>/run/host/passwd
echo '{USER}:x:{UID}:{UID}::{HOME}:/bin/sh' >>/run/host/passwd
echo '{USER}:x:{UID}:' >>/run/host/group
echo '{USER}:*:19000:0:99999:7:::' >>/run/host/shadow
chmod 644 /run/host/passwd /run/host/group
for file in passwd group shadow; do mount --bind /run/host/$file /etc/$file; done
printf '%s\\n' "$3" >/etc/sudoers.d/test
chmod 440 /etc/sudoers.d/test
printf %s "$2" >/proc/sys/kernel/hostname
shift 3
exec "$@"
"""


@functools.cache
def _no_penalties() -> str:
    """What keeps an sshd from shutting out whoever was refused a few times, from 9.8 on."""
    version = [tools.program("ssh"), "-V"]
    said = subprocess.run(version, capture_output=True, text=True, check=True).stderr
    match = re.match(r"OpenSSH_(\d+)\.(\d+)", said)
    later = match is not None and (int(match[1]), int(match[2])) >= (9, 8)
    return "PerSourcePenalties no" if later else ""


@functools.cache
def _keys() -> Path:
    """A directory with the user's key and the hosts' key."""
    directory = Path(tempfile.mkdtemp(prefix="anonvma-keys-"))
    for name in ("user", "host", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", directory / name],
            check=True,
        )
    return directory


def key(name: str) -> Path:
    """A key's file: user, host or stranger, or one of these with .pub."""
    return _keys() / name


def remove_keys() -> None:
    """Remove what `_keys` has made."""
    if _keys.cache_info().currsize:
        shutil.rmtree(_keys(), ignore_errors=True)
        _keys.cache_clear()


class Host:
    """A host that runs.

    Attributes
    ----------
    target : str
        What to call it as a target, logging in as the user.
    hostname : str
        Its own name, which is to be found nowhere.
    """

    def __init__(
        self,
        directory: Path,
        *,
        sudoers: str = "",
        sshd_config: str = "",
        ssh_config: str = "",
        namespace: str | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.prepare = f"set -e{tools.lay()}{_PREPARE}"
        self.directory = directory
        self.address, self.namespace = address, namespace
        self.alias = "box"
        self.hostname = f"secret-{secrets.token_hex(6)}"
        self.port = 22 if namespace else free_port()
        self.config = directory / "config"
        self._write_files(sshd_config, ssh_config)
        self._sudoers = sudoers
        self.boot()

    def _write_files(self, sshd_config: str, ssh_config: str) -> None:
        keys = _keys()
        server = self.directory / "server"
        server.mkdir()
        shutil.copy(keys / "host", server / "key")
        shutil.copy(keys / "user.pub", server / "authorized")
        (server / "sshd_config").write_text(
            f"{sshd_config}\n"
            f"ListenAddress {self.address}\nPort {self.port}\nHostKey /run/host/key\n"
            "AuthorizedKeysFile /run/host/authorized\nStrictModes no\nUsePAM no\nPidFile none\n"
            "PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "MaxStartups 100\nSubsystem sftp internal-sftp\n"
            f"{_no_penalties()}\n"
        )
        known = self.directory / "known"
        host_key = (keys / "host.pub").read_text()
        name = self.address if self.port == 22 else f"[{self.address}]:{self.port}"
        known.write_text(f"{name} {host_key}")
        self.config.write_text(
            f"{ssh_config}\n"
            f"Host {self.alias}\nHostName {self.address}\nPort {self.port}\n"
            "Host *\n"
            f"User {USER}\nIdentityFile {keys / 'user'}\nIdentitiesOnly yes\nIdentityAgent none\n"
            f"UserKnownHostsFile {known}\nGlobalKnownHostsFile none\n"
        )

    # ---- its life ----

    def boot(self) -> None:
        """Start it, and wait until its sshd listens."""
        inside = ["nsenter", f"--net=/run/netns/{self.namespace}"] if self.namespace else []
        # It ends with us, even if we are killed.
        unshare = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--kill-child", "--fork"]
        unshare += ["--mount", "--pid", "--uts", "--mount-proc"]
        server = ["/usr/sbin/sshd", "-D", "-e", "-f", "/run/host/sshd_config"]
        words = [str(self.directory / "server"), self.hostname, self._sudoers, *server]
        log = (self.directory / "sshd.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [*inside, *unshare, "sh", "-c", self.prepare, "sh", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(lambda: self.process.poll() is not None or self._listens(), self.log)
        assert self.process.poll() is None, self.log()

    def _listens(self) -> bool:
        try:
            with socket.create_connection((self.address, self.port), PATIENCE):
                return True
        except OSError:
            return False

    def pull_the_plug(self) -> None:
        """End it and everything on it at once, with no goodbye to anybody."""
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """What its sshd has said."""
        return (self.directory / "sshd.log").read_text(errors="replace")

    @property
    def init(self) -> int:
        """Its process 1, as it is called here."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])

    # ---- what is on it ----

    def target(self, user: str = USER, **options: object) -> str:
        """What to call it as a target."""
        words = {"config": self.config, **options}
        return ",".join([f"ssh:{user}@{self.alias}", *(f"{k}={v}" for k, v in words.items())])

    def path(self, path: str) -> Path:
        """A file of it, as it is called here."""
        return Path(f"/proc/{self.init}/root{path}")

    def processes(self) -> list[str]:
        """The command lines of what runs there, but for sshd and its process 1."""
        mine = os.readlink(f"/proc/{self.init}/ns/pid")
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "ns/pid") != mine:
                    continue
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it ended meanwhile
                continue
            # Since OpenSSH 9.8 a session has a program of its own, sshd-session.
            if line and not Path(line.split()[0]).name.startswith("sshd"):
                found.append(line)
        return found

    def leftovers(self) -> list[str]:
        """What a session has left there: processes, and files in /tmp."""
        return [*self.processes(), *os.listdir(self.path("/tmp"))]

    def wait_until_clean(self) -> None:
        """Wait until nothing of a session is left."""
        until(lambda: not self.leftovers(), self.leftovers)


@contextlib.contextmanager
def host(directory: Path, **options: str) -> Iterator[Host]:
    """A host on this machine's own loopback network."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Host(directory, **options)
    try:
        yield made
    finally:
        made.pull_the_plug()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ---- hosts with a network of their own ----


class Cable:
    """A veth pair between here and a network namespace, which has the other end."""

    def __init__(self, number: int, network: str) -> None:
        self.namespace = f"anonvma{os.getpid()}-{number}"
        self.here = f"av{os.getpid()}{number}"[:15]
        self.address = f"{network}.{4 * number + 2}"
        try:
            self._lay(f"{network}.{4 * number + 1}/30")
        except subprocess.CalledProcessError:
            self.remove()
            raise

    def _lay(self, ours: str) -> None:
        ip("netns", "add", self.namespace)
        ip("link", "add", self.here, "type", "veth", "peer", "name", "up0", "netns", self.namespace)
        ip("addr", "add", ours, "dev", self.here)
        ip("link", "set", self.here, "up")
        ip("-n", self.namespace, "addr", "add", f"{self.address}/30", "dev", "up0")
        for device in ("lo", "up0"):
            ip("-n", self.namespace, "link", "set", device, "up")

    def cut(self) -> None:
        """Take this end down: nothing passes, and nobody is told."""
        ip("link", "set", self.here, "down")

    def mend(self) -> None:
        """Take it up again."""
        ip("link", "set", self.here, "up")

    def remove(self) -> None:
        """Remove both ends, and the namespace, as far as they are there."""
        for words in (("link", "del", self.here), ("netns", "del", self.namespace)):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip(*words)

    def slow_down(self, rate: str) -> str | None:
        """Let no more than so much through, either way; why not, if that cannot be had."""
        for inside, device in ((["-n", self.namespace], "up0"), ([], self.here)):
            words = ["rate", rate, "burst", "4kb", "latency", "400ms"]
            done = subprocess.run(
                ["tc", *inside, "qdisc", "add", "dev", device, "root", "tbf", *words],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                return f"tc: {done.stderr.strip()}"
        return None

    def held_back(self) -> int:
        """How often the other end had to wait before it could send."""
        words = ["tc", "-n", self.namespace, "-s", "qdisc", "show", "dev", "up0"]
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        match = re.search(r"overlimits (\d+)", said)
        assert match, said
        return int(match[1])


def ip(*words: str) -> None:
    """Run ip."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def cables(count: int) -> Iterator[list[Cable]]:
    """So many of them; skips where network namespaces cannot be had, with the reason."""
    tools.lay()
    if shutil.which("ip") is None:
        pytest.skip("ip is not installed (package iproute2)")
    # 198.18.0.0/15 is for tests of networks (RFC 2544).
    network = f"198.18.{secrets.randbelow(254) + 1}"
    laid: list[Cable] = []
    try:
        try:
            for number in range(count):
                laid.append(Cable(number, network))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are refused: {error.stderr.strip()}")
        yield laid
    finally:
        for cable in laid:
            cable.remove()
