# SPDX-License-Identifier: GPL-2.0-only
"""The link to a target: commands and their streams, as frames over two file descriptors.

At its other end is our own process there: a guest's init, or the agent that ssh has started.

``analysis/guest/link.h`` describes the frames and has the same numbers. One thread reads and one
writes, so that neither direction ever waits for the other. When the target falls silent or its end
of the link closes, everybody who waits is told that it is lost. So are they when what a command
wrote does not have the SHA-256 that it had there.
"""

from __future__ import annotations

import hashlib
import io
import os
import queue
import select
import selectors
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, Any, NamedTuple

from anonvma.base.errors import TargetError, TargetLost, TargetTimeout
from anonvma.target.target import Process, Stream

__all__ = ["AS_GUARD", "AS_ROOT", "AS_USER", "Link", "RemoteProcess", "Usage"]

_FRAME = struct.Struct("<BBHII")
_MAGIC = 0xA50F
_VERSION = 2
_FRAME_MAX = _WINDOW = 32768
_START, _DATA, _CREDIT, _SIGNAL, _STARTED, _ENDED, _HELLO, _BEAT = range(1, 9)
_CLAIM, _CLAIMED, _BUSY, _HASH = range(9, 13)
_NULL, _PIPE, _STDOUT = range(3)
_NUMBER = struct.Struct("<I")
_BEGUN = struct.Struct("<ii")
_OVER = struct.Struct("<iI6Q")

AS_USER, AS_ROOT, AS_GUARD = range(3)
"""As whom a command runs: as who logged in, or as the target's own process; or, a guard, it is no
command but the file of a sysctl and a value (see ``analysis/guest/raise.c``)."""

_STOP_PATIENCE = 15.0  # seconds for a command to be gone once it is killed


class Usage(NamedTuple):
    """What a command and all children it waited for have used; see getrusage(2)."""

    user_s: float
    system_s: float
    minor_faults: int
    major_faults: int
    voluntary_ctxt: int
    involuntary_ctxt: int


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
        self.send(_CLAIM, 0, 0)

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
            thread.join(_STOP_PATIENCE)
        self._lose("was closed")
        os.close(self._wake)
        os.close(self._alarm)

    def start(
        self,
        argv: Sequence[str],
        stdin: Stream,
        stdout: Stream,
        stderr: Stream,
        how: int = AS_ROOT,
    ) -> RemoteProcess:
        """Start a command on the target; see `anonvma.target.target.Target.start`."""
        words = b"".join(os.fsencode(word) + b"\0" for word in argv)
        if len(words) + 4 > _FRAME_MAX:
            raise TargetError(f"the command line of {argv[0]} is too long for a link.")
        with self._changed:
            self._next += 1
            process = RemoteProcess(self, self._next, argv[0], (stdin, stdout, stderr))
            self._processes[process.id] = process
        modes = bytes(_mode(stream) for stream in (stdin, stdout, stderr))
        self.send(_START, 0, process.id, modes + bytes([how]) + words)
        if self._ahead:
            for stream in (1, 2):
                self.send(_CREDIT, stream, process.id, _NUMBER.pack(self._ahead))
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
        self._outgoing.put(_FRAME.pack(kind, stream, _MAGIC, number, len(payload)) + payload)

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
                        return self._lose("ended")
                    buffers[source] += came
                    try:
                        sensible = self._take_frames(source, buffers[source])
                    except _Altered:
                        return self._lose("sent something other than what was read there")
                    except (struct.error, ValueError, OverflowError):  # of a payload
                        sensible = False
                    if not sensible:
                        return self._lose("said something that makes no sense")
                    heard = time.monotonic()

    def _take_frames(self, source: int, buffer: bytearray) -> bool:
        """Take the whole frames from the front of a buffer; False if there is anything else."""
        at = 0
        while len(buffer) - at >= _FRAME.size:
            kind, stream, magic, number, length = _FRAME.unpack_from(buffer, at)
            if magic != _MAGIC or length > _FRAME_MAX:
                return False
            if len(buffer) - at < _FRAME.size + length:
                break
            payload = bytes(buffer[at + _FRAME.size : at + _FRAME.size + length])
            at += _FRAME.size + length
            if kind == _HELLO:
                if _NUMBER.unpack(payload)[0] != _VERSION:
                    return False
                self._choose(source)
            elif kind in (_CLAIMED, _BUSY):
                with self._changed:
                    self._claimed, self._busy = kind == _CLAIMED, payload
                    self._changed.notify_all()
            elif kind != _BEAT:
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
            return _FRAME.pack(_BEAT, 0, _MAGIC, 0, 0)


def _mode(stream: Stream) -> int:
    if stream == subprocess.DEVNULL or stream is None:
        return _NULL
    return _STDOUT if stream == subprocess.STDOUT else _PIPE


class _Altered(Exception):
    """What came is not what the target says that it sent."""


class _Output:
    """What came from one output stream of a command and was not taken yet.

    `room`, the caller's to grant, is what the target may send beyond that.
    """

    def __init__(self, sink: int | None) -> None:
        self.sink = sink  # a file of ours that all of it goes to
        self.chunks: deque[bytes] = deque()
        self.at_end = False
        self.kept: bytearray | None = None  # all of it goes here, for communicate()
        self.dropped = False
        self.hash = hashlib.sha256()
        self.verified = False


class RemoteProcess(Process):
    """A command that runs on a target; see `anonvma.target.target.Process`.

    Attributes
    ----------
    usage : Usage or None
        What it has used, once it has ended.
    """

    def __init__(
        self, link: Link, number: int, name: str, streams: tuple[Stream, Stream, Stream]
    ) -> None:
        self.id = number
        self.name = os.path.basename(name)
        self.usage: Usage | None = None
        self._link = link
        self._begun: tuple[int, int] | None = None
        self._status: int | None = None
        self._room = _WINDOW
        self._outputs = {
            number: _Output(_descriptor(stream))
            for number, stream in ((1, streams[1]), (2, streams[2]))
            if _mode(stream) == _PIPE
        }
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        if streams[0] == subprocess.PIPE:
            self.stdin = io.BufferedWriter(_Writer(self), _WINDOW)
        elif _mode(streams[0]) == _PIPE:
            self._feed_from(streams[0])
        if streams[1] == subprocess.PIPE:
            self.stdout = io.BufferedReader(_Reader(self, 1), _WINDOW)
        if streams[2] == subprocess.PIPE:
            self.stderr = io.BufferedReader(_Reader(self, 2), _WINDOW)

    def _feed_from(self, stream: Stream) -> None:
        """Pass on what can be read from a file, or from a pipe of somebody's."""
        source = os.dup(_descriptor(stream) or 0)

        def feed() -> None:
            try:
                while data := os.read(source, _FRAME_MAX):
                    self.put(data)
                self.end_input()
            except TargetLost:  # whoever waits for the process is told
                pass
            finally:
                os.close(source)

        threading.Thread(target=feed, daemon=True).start()

    # ---- what the target says of it; called with link.changed held ----

    def receive(self, kind: int, stream: int, payload: bytes) -> None:
        """Take a frame about this process."""
        if kind == _STARTED:
            self._begun = _BEGUN.unpack(payload)
        elif kind == _CREDIT:
            self._room += _NUMBER.unpack(payload)[0]
        elif kind == _DATA and stream in self._outputs:
            self._take(stream, payload)
        elif kind == _HASH and stream in self._outputs:
            output = self._outputs[stream]
            output.verified = output.hash.hexdigest().encode() == payload
        elif kind == _ENDED:
            status, _, *used = _OVER.unpack(payload)
            self._begun = self._begun or (0, 0)
            self._status = os.waitstatus_to_exitcode(status)
            self.usage = Usage(used[0] / 1e6, used[1] / 1e6, *used[2:])

    def _take(self, stream: int, payload: bytes) -> None:
        output = self._outputs[stream]
        output.hash.update(payload)
        if not payload:
            if not output.verified:
                raise _Altered
            output.at_end = True
        elif output.kept is None and output.sink is None and not output.dropped:
            output.chunks.append(payload)
            return  # the reader gives room when it was taken
        else:
            if output.kept is not None:
                output.kept += payload
            elif output.sink is not None and not output.dropped:
                _write_all(output.sink, payload)
            self._grant(stream, len(payload))

    def _grant(self, stream: int, count: int) -> None:
        self._link.send(_CREDIT, stream, self.id, _NUMBER.pack(count))

    def wait_until_started(self) -> None:
        """Wait until the command runs.

        Raises
        ------
        TargetError
            When it cannot be run.
        """
        with self._link.changed:
            self._link.wait_for(lambda: self._begun is not None)
            assert self._begun is not None
            error = self._begun[1]
        if error:
            self._link.forget(self)
            raise TargetError(f"cannot run {self.name} {self._link.where}: {os.strerror(error)}.")

    # ---- its streams ----

    def put(self, data: bytes) -> None:
        """Send bytes to its standard input, as it takes them.

        Raises
        ------
        BrokenPipeError
            When it has ended.
        """
        while data:
            with self._link.changed:
                self._link.wait_for(lambda: self._room or self._status is not None)
                if self._status is not None:
                    raise BrokenPipeError
                part, data = data[: self._room], data[self._room :]
                self._room -= len(part)
                self._link.send(_DATA, 0, self.id, part)

    def end_input(self) -> None:
        """Let its standard input end."""
        self._link.send(_DATA, 0, self.id)

    def take(self, stream: int, count: int) -> bytes:
        """Return up to `count` bytes of an output stream; none at its end."""
        output = self._outputs[stream]
        with self._link.changed:
            self._link.wait_for(lambda: output.chunks or output.at_end)
            if not output.chunks:
                return b""
            chunk = output.chunks.popleft()
            if len(chunk) > count:
                output.chunks.appendleft(chunk[count:])
        self._grant(stream, len(chunk[:count]))
        return chunk[:count]

    def _keep_output(self) -> None:
        """Take all output away from now on, what waits already included."""
        with self._link.changed:
            for stream, output in self._outputs.items():
                if output.sink is None and output.kept is None:
                    output.kept = bytearray(b"".join(output.chunks))
                    output.chunks.clear()
                    if output.kept:
                        self._grant(stream, len(output.kept))

    # ---- as any process ----

    def poll(self) -> int | None:
        """Return the exit status, minus the signal if one ended it, or None while it runs."""
        with self._link.changed:
            self._link.wait_for(lambda: self._status is not None, 0)
            return self._status

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status, minus the signal if one ended it."""
        with self._link.changed:
            if not self._link.wait_for(lambda: self._status is not None, timeout):
                raise TargetTimeout(f"{self.name} did not finish within {timeout:g} s.")
            assert self._status is not None
            return self._status

    def communicate(
        self, input: bytes | None = None, timeout: float | None = None
    ) -> tuple[bytes, bytes]:
        """Give it `input`, wait for its end and return what it wrote to its piped streams."""
        self._keep_output()
        if self.stdin is not None:
            try:
                self.stdin.write(input or b"")
                self.stdin.close()
            except BrokenPipeError:  # it ended without reading all of it
                pass
        self.wait(timeout)
        kept = [self._outputs.get(stream, _Output(None)).kept for stream in (1, 2)]
        return bytes(kept[0] or b""), bytes(kept[1] or b"")

    def send_signal(self, number: int) -> None:
        """Send a signal to the command itself."""
        self._link.send(_SIGNAL, 0, self.id, _NUMBER.pack(number))

    def stop(self) -> None:
        """Kill the command with everything it started; nothing is left when this returns."""
        with self._link.changed:
            for stream, output in self._outputs.items():
                output.dropped = output.kept is None and output.sink is None
                waiting = sum(map(len, output.chunks))
                if output.dropped and waiting:
                    output.chunks.clear()
                    self._grant(stream, waiting)
        if self._status is None:
            self._link.send(_SIGNAL, 0, self.id, _NUMBER.pack(0))
            try:
                self.wait(_STOP_PATIENCE)
            except TargetLost:  # and what runs there with it
                pass
        self._link.forget(self)

    def __exit__(self, *_: object) -> None:
        self.stop()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                try:
                    stream.close()
                except (BrokenPipeError, TargetLost):
                    # What it did not read cannot be delivered any more.
                    pass


class _Reader(io.RawIOBase):
    """The caller's end of an output stream."""

    def __init__(self, process: RemoteProcess, stream: int) -> None:
        self._process, self._stream = process, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._process.take(self._stream, len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Writer(io.RawIOBase):
    """The caller's end of the standard input."""

    def __init__(self, process: RemoteProcess) -> None:
        self._process = process

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._process.put(bytes(data))
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._process.end_input()
        super().close()


def _descriptor(stream: Stream) -> int | None:
    """Return the descriptor of a file of ours, None for what is not one."""
    if stream is None:
        return None
    if isinstance(stream, int):
        return stream if stream >= 0 else None
    return stream.fileno()


def _write_all(sink: int, data: bytes) -> None:
    while data:
        data = data[os.write(sink, data) :]
