# SPDX-License-Identifier: GPL-2.0-only
"""A QEMU that runs: its console, the link to its init, and why it is lost.

What a guest can do wrong ends it: it panics when it is out of memory or damaged, QEMU ends then
instead of starting it again, and init's heartbeat tells a guest that hangs from one that is busy.
Each is a TargetLost, apart from the TargetError of a command that only failed.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from anonvma.base.errors import TargetLost
from anonvma.target.link import CLOSED, ENDED, Link
from anonvma.target.local import Local
from anonvma.target.remote import console_line

_PORT = "anonvma"  # the virtio port's name; analysis/guest/init.c looks for it
_NO_TIMER = b"guest-init: no timer interrupt on processor"  # init.c says it
_PATIENCE = 30.0  # seconds without a heartbeat


class _Port(NamedTuple):
    kind: str
    read: int
    write: int


class Machine:
    """A QEMU that runs, its console and the link to its init.

    QEMU is kept as any command of `Local` is: it dies when we do.
    """

    def __init__(
        self, local: Local, words: Sequence[str], accel: str, name: str, memory: int
    ) -> None:
        self.accel = accel
        self._name, self._memory = name, memory
        self._console = Path(local.place(f"console-{accel}.log"))
        self._said = Path(local.place(f"qemu-{accel}.log"))
        second = Path(local.place(f"second-{accel}"))
        fifos = [second.with_name(second.name + end) for end in (".out", ".in")]
        for fifo in fifos:
            fifo.unlink(missing_ok=True)  # of a boot before
            os.mkfifo(fifo, 0o600)
        # For reading and writing, since opening one end alone would wait for the other.
        held = [os.open(fifo, os.O_RDWR | os.O_CLOEXEC) for fifo in fifos]
        with self._said.open("wb") as said:
            self._process = local.start(
                [*words, *self._ports(second)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._held = held
        ports = [
            _Port("virtio", self._process.stdout.fileno(), self._process.stdin.fileno()),
            _Port("serial", *held),
        ]
        self._ports_by_number = ports
        self.link = Link([(port.read, port.write) for port in ports], _PATIENCE, self.explain)

    def _ports(self, second: Path) -> list[str]:
        """Return QEMU's words for the console, the virtio port, and the second serial port."""
        return [
            *("-serial", f"file:{_escaped(self._console)}"),
            *("-chardev", "stdio,id=first,signal=off"),
            *("-device", "virtio-serial-pci"),
            *("-device", f"virtserialport,chardev=first,name={_PORT}"),
            *("-chardev", f"pipe,id=second,path={_escaped(second)}"),
            *("-serial", "chardev:second"),
        ]

    @property
    def port(self) -> str:
        """The kind of port that init has chosen."""
        number = self.link.wait_for_hello(0)
        assert number is not None
        return self._ports_by_number[number].kind

    def stop(self) -> None:
        """Kill QEMU and let go of everything."""
        self.link.close()
        self._process.stop()
        for descriptor in self._held:
            os.close(descriptor)
        self._held = []
        self._process.__exit__(None, None, None)

    # ---- what has happened to it ----

    def console(self) -> bytes:
        """Return what the console has said, without the user and host that built the kernel."""
        try:
            text = self._console.read_bytes()
        except FileNotFoundError:  # QEMU did not come to make it
            return b""
        return re.sub(rb"(Linux version \S+ )\(\S+@\S+\)", rb"\1(builder)", text)

    def lacks_timer(self) -> bool:
        """Whether init has found a processor whose timer never fires."""
        return _NO_TIMER in self.console()

    def console_size(self) -> int:
        """Return how much the console has said."""
        try:
            return self._console.stat().st_size
        except FileNotFoundError:
            return 0

    def qemu_log(self) -> str:
        """Return what QEMU itself has said."""
        return self._said.read_text(errors="replace").strip()

    def qemu_said(self) -> str:
        """Return how QEMU ended, and its own last words."""
        status = self._process.poll()
        lines = self.qemu_log().splitlines()
        said = f": {console_line(lines[-1])}" if lines else ""
        if status is None:
            return f"QEMU runs{said}"
        if status < 0:
            return f"QEMU was killed by signal {-status}{said}"
        return f"QEMU ended with status {status}{said}"

    def explain(self, how: str) -> TargetLost:
        """Return the error that says why the guest is lost, from what was seen of it here."""
        if how == ENDED:
            self._wait_for_the_end()
        console = self.console()
        cause = self._cause(how, console)
        # What the kernel says after its panic is a list of addresses.
        before = console.partition(b"Kernel panic - not syncing")[0].rpartition(b"\n")[0]
        text = (before or console).decode(errors="replace")
        last = [line for line in map(console_line, text.splitlines()) if line][-3:]
        tail = f"; its console ended with: {' | '.join(last)}" if last else ""
        return TargetLost(f"{self._name} is lost: {cause}{tail}.", console, cause)

    def _wait_for_the_end(self) -> None:
        """QEMU closed its output as it ended; its keeper needs a moment more."""
        deadline = time.monotonic() + 5
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)

    def _cause(self, how: str, console: bytes) -> str:
        if how == CLOSED:
            return "it was closed"
        given = f"{self._memory >> 20} MiB"
        if re.search(_NO_MEMORY, console):
            return f"it ran out of memory ({given} given; give it more)"
        panic = re.findall(rb"Kernel panic - not syncing: ([^\r\n]*)", console)
        if panic:
            return f"its kernel panicked ({console_line(panic[-1].decode(errors='replace'))})"
        if how == ENDED:
            return self.qemu_said()
        return f"it {how}"


_NO_MEMORY = (
    rb"Kernel panic - not syncing: (Out of memory|System is deadlocked on memory)"
    rb"|Initramfs unpacking failed: write error"
)


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")  # as QEMU's options want it
