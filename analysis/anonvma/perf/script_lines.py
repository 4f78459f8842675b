# SPDX-License-Identifier: GPL-2.0-only
"""Lines that perf script prints: of a sample, of a frame, and what is neither."""

from __future__ import annotations

import re

from anonvma.base.errors import ProfileError
from anonvma.base.text import printable

# A line about a sample: as `fields` has it, and as anybody's settings may. Tabs, too, may stand in
# somebody's name.
OURS = re.compile(
    rb" *(?P<pid>-?\d+)/(?P<tid>-?\d+) +(?:\[(?P<cpu>\d+)\] +)?(?P<s>\d+)\.(?P<ns>\d{9}):"
    rb" +(?:(?P<period>\d+) )? *(?P<event>.*?):(?: +(?P<frame>[0-9a-f]+ .*))?\s*",
    re.DOTALL,
)
THEIRS = re.compile(
    rb"\s*(?P<comm>.{0,62}\S|)\s+(?:(?P<pid>-?\d+)/)?(?P<tid>-?\d+)\s+(?:\[(?P<cpu>\d+)\]\s+)?"
    rb"(?:[KUHGgMESp]+\s+)?"  # -F +misc: the mode of the processor
    rb"(?P<s>\d+)\.(?P<ns>\d{6,9}):\s+(?:(?P<period>\d+)\s+)?(?P<event>\S+):(?:\s+(?P<frame>.*))?",
    re.DOTALL,
)
NEITHER = re.compile(
    rb"""(?:
        \#.*                                                      # of perf script --header
        |(?:.*\s)?(?:\d+\.\d{6,9}:\s+)?PERF_RECORD_[A-Z_0-9]+\b.*  # --show-mmap-events, ...
        |\s+\[?\d+/\w+:\s\d+/(?:0x)?[0-9a-f]+[\],].*              # of PERF_RECORD_NAMESPACES
        |.*\swith\ build\ id\ [0-9a-f]*\ not\ found,\ continuing\ without\ symbols
        |build\ id\ event\ received\ for\ .*                        # of -v, as the next
        |(?:Using|Looking\ at|Overlapping|symsrc__init|dso__\w+|overlapping\ maps).*
        |Warning:|(?:Warning:\s)?\d+\ out\ of\ order\ events\ recorded\.
        |Processed\ \d+\ (?:events\ and\ lost\ \d+\ chunks!|samples\ and\ lost\ .*)
        |Check\ IO/CPU\ overload!
        |(?:No|no)\ symbols?\ found\ in\ .*
        |(?:Failed\ to|Can't|Cannot|Could\ not|Couldn't|Unable\ to)\ .*
        |(?:addr2line|cmd__addr2line|BFD|perf|libunwind|unwind)[:\ ].*
        |Kernel\ address\ maps\ \(/proc/.*|Check\ /proc/sys/kernel/kptr_restrict\ .*
        |Symbol\ resolution\ may\ be\ skewed\ .*
        |Samples\ in\ kernel\ .*\ can't\ be\ resolved.*
        |.*\ was\ found,\ but\ .*
        |\[\ perf\ (?:record|script):\ .*\]?
        |Lowering\ default\ frequency\ rate\ .*
        |Please\ consider\ tweaking\ .*
    )\s*""",
    re.VERBOSE,
)
_RECORD = re.compile(rb".*\s\d+\.\d{6,9}:\s+PERF_RECORD_[A-Z_0-9]+\b.*")
LOST = re.compile(rb".*\bPERF_RECORD_LOST(?:_SAMPLES)?\s+lost\s+(?P<count>\d+)\s*")
"""What perf script --show-lost-events has of samples that the kernel had no room for."""
_LONGEST_NAME = 63  # of a kernel's worker, with what it works on; TASK_COMM_LEN - 1 of all others
LONGEST_BROKEN = 15
FRAME = re.compile(rb"\s*(?P<ip>[0-9a-f]+) (?P<symbol>.*)", re.DOTALL)
_FILE = re.compile(rb" \((?=/|\[|inlined\)|anon_inode:)")
SOURCE = re.compile(rb"  \S+:\d+|  \S+\[[0-9a-f]+\]")  # a line of source, after a frame
_OFFSET = re.compile(rb"\+0x[0-9a-f]+$")


def is_script(start: bytes) -> bool:
    """Tell whether text that begins so is of ``perf script``: has a sample or record, and when."""
    lines = [line for line in start.split(b"\n") if len(line) < 4096]
    return any(THEIRS.fullmatch(line) or _RECORD.fullmatch(line) for line in lines)


def their_head(text: bytes) -> re.Match[bytes] | None:
    """Return what the first line of a sample says; None if it is another's."""
    if len(text) > 1 << 16:
        return None
    match = THEIRS.fullmatch(text)
    if match is None or (match["event"].startswith(b"PERF_RECORD_")):
        return None
    longest = LONGEST_BROKEN if b"\n" in match["comm"] else _LONGEST_NAME
    return match if len(match["comm"]) <= longest else None


def begins_sample(text: bytes) -> bool:
    """Tell whether the next line is the first of a sample, and of nothing before it."""
    return their_head(text.partition(b"\n")[0]) is not None


def of_stack(line: bytes) -> bool:
    """Tell whether a line stands among the frames of a sample: one of them, or its source."""
    return bool(SOURCE.fullmatch(line) or (line[:1].isspace() and FRAME.fullmatch(line)))


def is_closed(line: bytes) -> bool:
    """Tell whether a frame's line has its end; somebody may have asked for no files."""
    return line.endswith(b")") or not _FILE.search(line)


def strange(number: int, line: bytes) -> ProfileError:
    """Return the error about a line that is none of those that perf script prints."""
    return ProfileError(
        f"line {number} is neither of a sample nor of a frame, nor anything else that perf script "
        f"prints: {shown(line.strip()[:60])!r}."
    )


def frame_of(line: bytes) -> tuple[bytes, bytes, int]:
    """Take a frame's line apart: symbol, file, address."""
    match = FRAME.fullmatch(line)
    if match is None:
        return UNKNOWN, b"", 0
    text = match["symbol"]
    where = _FILE.search(text)
    if where:
        symbol, file = text[: where.start()], text[where.end() :].removesuffix(b")")
    else:
        symbol, bracket, file = text.rpartition(b" (")
        if not bracket:
            symbol, file = text, b""
        file = file.removesuffix(b")")
    symbol, address = _OFFSET.sub(b"", symbol.strip()), int(match["ip"], 16)
    # The field dsoff: where in its file the frame is, which says more than where it was mapped.
    if file.startswith(b"/") and (offset := _OFFSET.search(file)):
        file, address = file[: offset.start()], int(offset[0][1:], 16)
    if _VDSO.fullmatch(file):
        file = b"[vdso]"
    return symbol or UNKNOWN, file.removesuffix(b" (deleted)"), address


UNKNOWN = b"[unknown]"
# perf resolves symbols in a copy that it makes of the vDSO, under another name each time
# (tools/perf/util/vdso.c).
_VDSO = re.compile(rb".*/perf-vdso(?:32|x32)?\.so-\w{6}")


def shown(name: bytes) -> str:
    """Decode a symbol; whatever would disturb a line shows as an escape sequence."""
    return printable(name.decode("utf-8", "backslashreplace"))
