# SPDX-License-Identifier: GPL-2.0-only
"""From a recording to its samples: ``perf script`` on the machine that has it, read as it prints.

Symbols are resolved where the recording was made, for that is where the kernel's symbols and the
programs are; what comes back needs neither any more.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO

from anonvma import perf_script
from anonvma.errors import ProfileError
from anonvma.perf_data import Recording
from anonvma.perf_script import Parser, Profile
from anonvma.target import Target

__all__ = ["finish", "printed"]

_PIECE = 1 << 20


def printed(
    target: Target,
    words: list[str],
    errors: Path,
    *,
    privileged: bool,
    parser: Parser | None = None,
    limit: int | None = None,
) -> Parser:
    """Run ``perf script`` on a target and take in what it prints, while it prints.

    Parameters
    ----------
    target : Target
    words : list of str
        The command; see `anonvma.perf.Perf.script`.
    errors : path
        Where its standard error is kept.
    privileged : bool
        Whether to run it privileged.
    parser : Parser, optional
        What takes it in.
    limit : int, optional
        Bytes of text that are taken at most.

    Raises
    ------
    ProfileError
        It failed, or printed something else or too much.
    """
    parser = parser or Parser()
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
    return parser


def _piece(stream: IO[bytes]) -> bytes:
    # What is there, instead of waiting for all of it; a pipe gives 64 KiB at most.
    read1: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    return read1(_PIECE)


def finish(
    parser: Parser,
    recording: Recording,
    inlines: Callable[[list[tuple[bytes, bytes, int]]], list[list[bytes]]] | None = None,
) -> Profile:
    """Return the samples of a recording whose text was taken in, with the names it holds itself.

    Raises
    ------
    ProfileError
        When the text has more samples than the recording, or hardly any: a symbol or a path in it
        then passed for text of perf's own.
    """
    profile = parser.finish(comms=recording.names, inlines=inlines)
    if recording.samples >= 0 and len(profile.samples) != recording.samples:
        raise ProfileError(
            f"perf script printed {len(profile.samples):,} samples of the {recording.samples:,} "
            "recorded: a symbol or a path in this recording passes for text of perf's own."
        )
    return profile
