# SPDX-License-Identifier: GPL-2.0-only
"""The link to a target: commands and their streams, as frames over two file descriptors.

At its other end is our own process there: a guest's init, or the agent that ssh has started.

``analysis/guest/link.h`` describes the frames and has the same numbers. One thread reads and one
writes, so that neither direction ever waits for the other. When the target falls silent or its end
of the link closes, everybody who waits is told that it is lost. So are they when what a command
wrote does not have the SHA-256 that it had there.
"""

from __future__ import annotations

import os
import queue
import select
import selectors
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from anonvma.base.errors import TargetError, TargetLost
from anonvma.target import wire
from anonvma.target.remote_process import STOP_PATIENCE, Altered, RemoteProcess, mode
from anonvma.target.target import Stream

ENDED, CLOSED = "ended", "was closed"
"""How a link is lost: its other end ended, or we closed it; anything else is said as it is."""


class Link:
    """A link over one of several pairs of file descriptors: the one the target speaks first on.

    Parameters
    ----------
    pairs : sequence of (int, int)
        Where to read from and write to. All are read until one has said hello; the end of the
        first is the end of the target.
    patience : float
        Seconds of silence after which a target that has said hello counts as lost.
    explain : callable
        Makes, from a word on what was seen here, the TargetLost that those who wait get.
    where : str
        What to say of where a command runs.
    beat : float, optional
        Seconds of our own silence after which we say that we are there, to a target that listens
        for that.
    ahead : int
        Bytes of each output stream that a target may send beyond the window that every one has:
        where a round trip takes long, and nothing is overrun.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        patience: float,
        explain: Callable[[str], TargetLost],
        where: str = "in the guest",
        beat: float | None = None,
        ahead: int = 0,
    ) -> None:
        self._ahead = ahead
        self.where = where
        self._beat = beat
        self._claimed = False
        self._busy: bytes | None = None
        self._pairs = list(pairs)
        for descriptor in (each for pair in pairs for each in pair):
            os.set_blocking(descriptor, False)
        self._patience = patience
        self._explain = explain
        self._changed = threading.Condition()
        self._processes: dict[int, RemoteProcess] = {}
        self._next = 0
        self._chosen: int | None = None
        self._lost: str | None = None
        self._error: TargetLost | None = None
        self._closing = False
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._wake, self._alarm = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._threads = [threading.Thread(target=self._read, daemon=True)]
        self._threads[0].start()

    # ---- for the target's owner ----

    def wait_for_hello(self, timeout: float) -> int | None:
        """Wait for the target's first word: the number of the pair it came on; None if it did not.

        Raises
        ------
        TargetLost
            When the target has ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._chosen is not None or self._lost, timeout)
            if self._chosen is None and self._lost:
                raise self._lost_error()
            return self._chosen

    def claim(self) -> None:
        """Ask for the target for us alone; `wait_for_claim` tells what came of it."""
        self.send(wire.CLAIM, 0, 0)

    def wait_for_claim(self, timeout: float) -> bytes | None:
        """Wait until the target is ours: None then, else what it last said of who has it.

        Raises
        ------
        TargetLost
            When the target has ended.
        """
        with self._changed:
            self.wait_for(lambda: self._claimed, timeout)
            return None if self._claimed else self._busy or b""

    @property
    def lost(self) -> bool:
        """Whether the target has gone away, as far as is known."""
        return self._lost is not None

    def close(self) -> None:
        """Let go of the link."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
        os.write(self._alarm, b"x")
        self._outgoing.put(None)
        for thread in self._threads:
            thread.join(STOP_PATIENCE)
        self._lose(CLOSED)
        os.close(self._wake)
        os.close(self._alarm)

    def start(
        self,
        argv: Sequence[str],
        stdin: Stream,
        stdout: Stream,
        stderr: Stream,
        how: int = wire.AS_ROOT,
    ) -> RemoteProcess:
        """Start a command on the target; see `anonvma.target.target.Target.start`."""
        words = b"".join(os.fsencode(word) + b"\0" for word in argv)
        if len(words) + 4 > wire.FRAME_MAX:
            raise TargetError(f"the command line of {argv[0]} is too long for a link.")
        with self._changed:
            self._next += 1
            process = RemoteProcess(self, self._next, argv[0], (stdin, stdout, stderr))
            self._processes[process.id] = process
        modes = bytes(mode(stream) for stream in (stdin, stdout, stderr))
        self.send(wire.START, 0, process.id, modes + bytes([how]) + words)
        if self._ahead:
            for stream in (1, 2):
                self.send(wire.CREDIT, stream, process.id, wire.NUMBER.pack(self._ahead))
        process.wait_until_started()
        return process

    # ---- for processes ----

    @property
    def changed(self) -> threading.Condition:
        """Notified whenever anything about any process has changed."""
        return self._changed

    def wait_for(self, ready: Callable[[], Any], timeout: float | None = None) -> bool:
        """Wait, `changed` being held, until something is so; False if the time is over.

        Raises
        ------
        TargetLost
            When it is not so, and the target is lost.
        """
        self._changed.wait_for(lambda: ready() or self._lost, timeout)
        if ready():
            return True
        if self._lost:
            raise self._lost_error()
        return False

    def send(self, kind: int, stream: int, number: int, payload: bytes = b"") -> None:
        """Send a frame, in its turn."""
        self._outgoing.put(
            wire.FRAME.pack(kind, stream, wire.MAGIC, number, len(payload)) + payload
        )

    def forget(self, process: RemoteProcess) -> None:
        """Hear no more of a process."""
        with self._changed:
            self._processes.pop(process.id, None)

    # ---- losing it ----

    def _lose(self, how: str) -> None:
        with self._changed:
            self._lost = self._lost or how
            self._changed.notify_all()

    def _lost_error(self) -> TargetLost:
        """Return the same error to everybody: to look into why takes a moment."""
        assert self._lost is not None
        if self._error is None:
            self._error = self._explain(self._lost)
        return self._error

    # ---- the threads ----

    def _read(self) -> None:
        """Take frames from the target until it is lost; until its hello, from every pair."""
        buffers = {source: bytearray() for source, _ in self._pairs}
        heard = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            for source in buffers:
                selector.register(source, selectors.EVENT_READ)
            while not self._closing:
                patience = None
                if self._chosen is not None:
                    patience = max(0.0, heard + self._patience - time.monotonic())
                ready = [key.fd for key, _ in selector.select(patience)]
                if not ready:
                    return self._lose(f"gave no sign of life for {self._patience:g} s")
                for source in ready:
                    if source == self._wake:
                        return
                    came = os.read(source, 1 << 16)
                    if not came:
                        return self._lose(ENDED)
                    buffers[source] += came
                    try:
                        sensible = self._take_frames(source, buffers[source])
                    except Altered:
                        return self._lose("sent something other than what was read there")
                    except (struct.error, ValueError, OverflowError):  # of a payload
                        sensible = False
                    if not sensible:
                        return self._lose("said something that makes no sense")
                    heard = time.monotonic()

    def _take_frames(self, source: int, buffer: bytearray) -> bool:
        """Take the whole frames from the front of a buffer; False if there is anything else."""
        at = 0
        while len(buffer) - at >= wire.FRAME.size:
            kind, stream, magic, number, length = wire.FRAME.unpack_from(buffer, at)
            if magic != wire.MAGIC or length > wire.FRAME_MAX:
                return False
            if len(buffer) - at < wire.FRAME.size + length:
                break
            payload = bytes(buffer[at + wire.FRAME.size : at + wire.FRAME.size + length])
            at += wire.FRAME.size + length
            if kind == wire.HELLO:
                if wire.NUMBER.unpack(payload)[0] != wire.VERSION:
                    return False
                self._choose(source)
            elif kind in (wire.CLAIMED, wire.BUSY):
                with self._changed:
                    self._claimed, self._busy = kind == wire.CLAIMED, payload
                    self._changed.notify_all()
            elif kind != wire.BEAT:
                self._hand_on(kind, stream, number, payload)
        del buffer[:at]
        return True

    def _choose(self, source: int) -> None:
        for number, (read, write) in enumerate(self._pairs):
            if read == source:
                with self._changed:
                    self._chosen = number
                    self._changed.notify_all()
                self._threads.append(
                    threading.Thread(target=self._write, args=(write,), daemon=True)
                )
                self._threads[-1].start()

    def _hand_on(self, kind: int, stream: int, number: int, payload: bytes) -> None:
        with self._changed:
            process = self._processes.get(number)
            if process is not None:
                process.receive(kind, stream, payload)
                self._changed.notify_all()

    def _write(self, sink: int) -> None:
        while (frame := self._next_frame()) is not None:
            while frame and not self._closing:
                try:
                    frame = frame[os.write(sink, frame) :]
                except BlockingIOError:
                    select.select([], [sink], [], 0.1)
                except OSError:  # the reading thread will see that the target has ended
                    return

    def _next_frame(self) -> bytes | None:
        """Return what is to be sent next, or our beat when there is nothing for so long."""
        try:
            return self._outgoing.get(timeout=self._beat)
        except queue.Empty:
            return wire.FRAME.pack(wire.BEAT, 0, wire.MAGIC, 0, 0)
