# SPDX-License-Identifier: GPL-2.0-only
"""A command that runs at the other end of a link, and its streams."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import threading
from collections import deque
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from anonvma.base.errors import TargetError, TargetLost, TargetTimeout
from anonvma.target import wire
from anonvma.target.target import Process, Stream

if TYPE_CHECKING:
    from anonvma.target.link import Link


STOP_PATIENCE = 15.0  # seconds for a command to be gone once it is killed


class Usage(NamedTuple):
    """What a command and all children it waited for have used; see getrusage(2)."""

    user_s: float
    system_s: float
    minor_faults: int
    major_faults: int
    voluntary_ctxt: int
    involuntary_ctxt: int


def mode(stream: Stream) -> int:
    """Return what a stream is to the target: nothing, a pipe, or the standard output."""
    if stream == subprocess.DEVNULL or stream is None:
        return wire.NULL
    return wire.STDOUT if stream == subprocess.STDOUT else wire.PIPE


class Altered(Exception):
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
        self._room = wire.WINDOW
        self._outputs = {
            number: _Output(_descriptor(stream))
            for number, stream in ((1, streams[1]), (2, streams[2]))
            if mode(stream) == wire.PIPE
        }
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        if streams[0] == subprocess.PIPE:
            self.stdin = io.BufferedWriter(_Writer(self), wire.WINDOW)
        elif mode(streams[0]) == wire.PIPE:
            self._feed_from(streams[0])
        if streams[1] == subprocess.PIPE:
            self.stdout = io.BufferedReader(_Reader(self, 1), wire.WINDOW)
        if streams[2] == subprocess.PIPE:
            self.stderr = io.BufferedReader(_Reader(self, 2), wire.WINDOW)

    def _feed_from(self, stream: Stream) -> None:
        """Pass on what can be read from a file, or from a pipe of somebody's."""
        source = os.dup(_descriptor(stream) or 0)

        def feed() -> None:
            try:
                while data := os.read(source, wire.FRAME_MAX):
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
        if kind == wire.STARTED:
            self._begun = wire.BEGUN.unpack(payload)
        elif kind == wire.CREDIT:
            self._room += wire.NUMBER.unpack(payload)[0]
        elif kind == wire.DATA and stream in self._outputs:
            self._take(stream, payload)
        elif kind == wire.HASH and stream in self._outputs:
            output = self._outputs[stream]
            output.verified = output.hash.hexdigest().encode() == payload
        elif kind == wire.ENDED:
            status, _, *used = wire.OVER.unpack(payload)
            self._begun = self._begun or (0, 0)
            self._status = os.waitstatus_to_exitcode(status)
            self.usage = Usage(used[0] / 1e6, used[1] / 1e6, *used[2:])

    def _take(self, stream: int, payload: bytes) -> None:
        output = self._outputs[stream]
        output.hash.update(payload)
        if not payload:
            if not output.verified:
                raise Altered
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
        self._link.send(wire.CREDIT, stream, self.id, wire.NUMBER.pack(count))

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
                self._link.send(wire.DATA, 0, self.id, part)

    def end_input(self) -> None:
        """Let its standard input end."""
        self._link.send(wire.DATA, 0, self.id)

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
        self._link.send(wire.SIGNAL, 0, self.id, wire.NUMBER.pack(number))

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
            self._link.send(wire.SIGNAL, 0, self.id, wire.NUMBER.pack(0))
            try:
                self.wait(STOP_PATIENCE)
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
