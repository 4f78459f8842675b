# SPDX-License-Identifier: GPL-2.0-only
"""From a recording to its samples, by ``perf script`` on the machine that made it.

Symbols are resolved there because the kernel's symbols and the programs are there. perf is given
only the part of the recording that it takes, see `anonvma.perf.deduplicated`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from anonvma.base.errors import ProfileError
from anonvma.perf import deduplicated
from anonvma.perf import recording as perf_data
from anonvma.perf import script as perf_script
from anonvma.perf.recording import Recording
from anonvma.perf.script import Parser
from anonvma.perf.stacks import Inline, Profile
from anonvma.target.target import Target

_PIECE = 1 << 20


Script = Callable[[Path, Sequence[str]], list[str]]
"""Given a recording and more words, returns the command that prints it."""


def read(
    target: Target,
    path: Path,
    script: Script,
    scratch: Path,
    *,
    privileged: bool,
    inlines: Inline | None = None,
    limit: int | None = None,
) -> tuple[Recording, Profile]:
    """Return what a recording is, and its samples.

    Parameters
    ----------
    target : Target
        Where perf is run.
    path : path
        The recording, on this machine.
    script : callable
        Given a recording on this machine and more words, returns the command that has
        ``perf script`` print it on the target; see `anonvma.perf.tool.Perf.script`.
    scratch : path
        Where to write temporary files: endings are put behind this name.
    privileged : bool
        Whether to run perf privileged.
    inlines : callable, optional
        See `anonvma.perf.script.Parser.finish`.
    limit : int, optional
        Bytes that the recording, and the text about it, may have.

    Raises
    ------
    ProfileError
        The recording is none, or damaged; perf failed, or printed something else or too much.
    """
    file = perf_data.File(path, limit)
    recording = file.recording()

    def printed(what: Path) -> Parser:
        fields = perf_script.fields(recording.has_cpu, recording.has_period)
        parser = Parser(cpu=recording.has_cpu, period=recording.has_period)
        errors = scratch.with_name(f"{scratch.name}.stderr")
        try:
            _print(target, script(what, fields), errors, parser, privileged, limit)
        finally:
            errors.unlink(missing_ok=True)
        return parser

    part = scratch.with_name(f"{scratch.name}.data")
    try:
        abridged = deduplicated.abridge(file, part)
        if abridged:
            found = abridged.whole(printed(part).printed(), recording.names, inlines)
            if found:
                return recording, found
    finally:
        part.unlink(missing_ok=True)
    return recording, _whole(printed(path), recording, inlines)


def read_named(target: Target, words: list[str], scratch: Path, *, limit: int | None) -> Profile:
    """Return the samples that a command prints, in whose text the names of threads are.

    So are read a directory of ``perf record --threads``, a recording of a pipe and a compressed
    one, which only perf takes apart.

    Parameters
    ----------
    target : Target
        Where it is run, not privileged.
    words : list of str
    scratch : path
        See `read`.
    limit : int or None
        Bytes that the text may have.
    """
    parser = Parser(theirs=True)
    errors = scratch.with_name(f"{scratch.name}.stderr")
    try:
        _print(target, words, errors, parser, False, limit)
    finally:
        errors.unlink(missing_ok=True)
    return parser.finish()


def _print(
    target: Target,
    words: list[str],
    errors: Path,
    parser: Parser,
    privileged: bool,
    limit: int | None,
) -> None:
    """Run ``perf script`` and take in what it prints, while it prints."""
    with (
        errors.open("wb") as said,
        target.start(words, privileged=privileged, stdout=subprocess.PIPE, stderr=said) as process,
    ):
        assert process.stdout is not None
        size = 0
        while piece := _piece(process.stdout):
            size += len(piece)
            if limit is not None and size > limit:
                raise ProfileError(perf_script.too_long(limit))
            parser.feed(piece)
        status = process.wait()
    if status:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        lines = errors.read_bytes().decode(errors="backslashreplace").strip().splitlines()
        last = f": {lines[-1][:200]}" if lines else ""
        raise ProfileError(f"perf script {how}{last.rstrip('.')}.")


def _piece(stream: IO[bytes]) -> bytes:
    # What is there, instead of waiting for all of it; a pipe gives 64 KiB at most.
    read1: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    return read1(_PIECE)


def _whole(parser: Parser, recording: Recording, inlines: Inline | None) -> Profile:
    """Return the samples of a recording that was printed as a whole.

    Raises
    ------
    ProfileError
        When the text has more samples than the recording, or fewer: a symbol or a path in it then
        passed for text of perf's own.
    """
    profile = parser.finish(comms=recording.names, inlines=inlines)
    if recording.samples >= 0 and len(profile.samples) != recording.samples:
        raise ProfileError(
            f"perf script printed {len(profile.samples):,} samples of the {recording.samples:,} "
            "recorded: a symbol or a path in this recording passes for text of perf's own."
        )
    if not recording.has_period:
        periods = dict(zip(recording.events, recording.periods, strict=False))
        profile.samples["period"] = (
            profile.samples["event"].map(periods).astype("Int64").fillna(1).astype("int64")
        )
    return profile
