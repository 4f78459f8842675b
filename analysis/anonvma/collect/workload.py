# SPDX-License-Identifier: GPL-2.0-only
"""What is observed: a case of vmload, the specimens, any other command, or a running process."""

from __future__ import annotations

import errno
import functools
import math
import mmap
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, field_validator, model_validator

from anonvma.base import paths
from anonvma.base.errors import SetupError, TargetError, WorkloadError
from anonvma.base.nearest import nearest
from anonvma.collect.program import Steps
from anonvma.target.target import Target

Kind = Literal["case", "specimens", "command", "pid"]
Touch = Literal["user", "kernel"]

_SUFFIXES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_MAX_MAP_COUNT = (1 << 31) - 1  # sysctl_max_map_count is an int
_WORD = 8  # bytes that vmload reads or writes at once
_MAPPINGS_OF_A_PROGRAM = 1024  # program, stacks of its threads, and room to spare


def parse_size(text: str | int, what: str = "size") -> int:
    """Return a number of bytes, as usemem reads one: ``800m``, ``40k``, ``0x1000``, ``4096``.

    Raises
    ------
    WorkloadError
        When it is no such thing, or nothing.
    """
    match = re.fullmatch(r"(0[xX][0-9a-fA-F]+|\d+)([kmgt]?)", str(text).strip().lower())
    size = int(match[1], 0 if "x" in match[1] else 10) * _SUFFIXES[match[2]] if match else 0
    if size < 1 or size >= 1 << 63:
        raise WorkloadError(
            f"{what} {text!r} is not a size: give a number of bytes above 0 and below 2**63, with "
            "k, m, g or t behind it if you like, such as 800m."
        )
    return size


# With none of these vmload maps /dev/zero, privately.
_NOT_DEV_ZERO = frozenset(
    ("-f", "--file", "-O", "--anonymous", "-a", "--malloc", "-U", "--hugetlb")
)


@functools.cache
def cases() -> dict[str, str]:
    """Return the cases that vmload knows, each with the options it stands for.

    Raises
    ------
    SetupError
        When vmload is not built, or not for this machine.
    """
    vmload = paths.program("vmload")
    try:
        listed = subprocess.run([vmload, "--cases"], capture_output=True, check=True, text=True)
    except OSError as error:
        of_file = error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC)
        remedy = ": build it again" if of_file else ""
        raise SetupError(f"{vmload} does not run here ({error.strerror}){remedy}.") from None
    except subprocess.CalledProcessError as error:
        ended = "was killed by signal" if error.returncode < 0 else "ended with exit status"
        raise SetupError(
            f"{vmload} {ended} {abs(error.returncode)} when it was to list its cases."
        ) from None
    return dict(line.split("\t", 1) for line in listed.stdout.splitlines())


def _known_cases() -> dict[str, str]:
    """Return the cases, or none where vmload is not built: recorded runs are read without it.

    Nothing is run without it: `Workload.check` asks for it.
    """
    try:
        return cases()
    except SetupError:
        return {}


class Workload(Steps):
    """One workload with its parameters; impossible ones raise WorkloadError, one sentence each.

    What is done around a command is in `anonvma.collect.program.Steps`.

    Attributes
    ----------
    workload : str
        The name of a case (``vmload --cases``), ``specimens``, ``pid:1234`` for a process that is
        running, or a command line, taken apart as a shell would but never given to one.
    threads : int
        Tasks of a case: threads, or processes where the case uses these.
    bytes : int
        Bytes of a case, over all tasks; given as a number or like ``800m``.
    unit : int or None
        Bytes of each mapping of a case, given alike; None leaves the case's own.
    touch : {"user", "kernel"} or None
        Who touches each page of a case first, so that its fault is taken in that mode: the task,
        or a system call of its. A fault in kernel mode takes mmap_lock on any kernel. None leaves
        the system call out, as usemem does.
    seconds : float
        How long a running process is watched.

    Notes
    -----
    `threads`, `bytes`, `unit` and `touch` say nothing to a workload that is not a case, and are
    ignored then, as is `seconds` for any but a running process; `parameters` holds those that
    count.
    """

    workload: str = "small-allocs-mt"
    threads: int = 2
    bytes: int = 800 << 20
    unit: int | None = None
    touch: Touch | None = None
    seconds: float = 5.0
    _page_size: int = mmap.PAGESIZE

    def __init__(self, **parameters: Any) -> None:
        try:
            super().__init__(**parameters)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise WorkloadError(f"workload parameter {where}: {first['msg']}.") from None

    # A validator that raises anything but ValueError ends the validation with it.

    @field_validator("workload", mode="before")
    @classmethod
    def _check_workload(cls, text: object) -> str:
        if not isinstance(text, str) or not text.strip():
            raise WorkloadError(
                "workload is empty: name a case of 'vmload --cases', 'specimens', 'pid:NUMBER' or "
                "a command."
            )
        if "\0" in text:
            raise WorkloadError(f"workload {text!r} has a NUL byte in it.")
        text = text.strip()
        if text.startswith("pid:") and not re.fullmatch(r"pid:[1-9]\d{0,8}", text):
            raise WorkloadError(f"workload {text!r} names no process: write it like pid:1234.")
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise WorkloadError(f"workload {text!r} is not a command line: {error}.") from None
        _refuse_misspelt_case(words)
        return text

    @field_validator("threads", mode="before")
    @classmethod
    def _check_threads(cls, value: object) -> int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or (isinstance(value, str) and value.isdecimal())):
            raise WorkloadError(f"threads {value!r} is not a whole number.")
        count = int(str(value))
        if count < 1:
            raise WorkloadError(f"threads is {count}: at least 1 is needed.")
        return count

    @field_validator("bytes", "unit", mode="before")
    @classmethod
    def _check_sizes(cls, value: Any, info: Any) -> int | None:
        if value is None and info.field_name == "unit":
            return None
        return parse_size(value, info.field_name)

    @field_validator("touch", mode="before")
    @classmethod
    def _check_touch(cls, value: object) -> object:
        if value not in (None, "user", "kernel"):
            raise WorkloadError(f"touch is {value!r}: it must be user or kernel.")
        return value

    @field_validator("seconds", mode="before")
    @classmethod
    def _check_seconds(cls, value: Any) -> float:
        try:
            seconds = float(value)
        except (TypeError, ValueError):
            raise WorkloadError(f"seconds {value!r} is not a number.") from None
        if not 0 < seconds < 1e6:
            raise WorkloadError(f"seconds is {value}: it must be above 0 and below a million.")
        return seconds

    @model_validator(mode="after")
    def _check_division(self) -> Workload:
        is_case = self.workload in _known_cases()
        if self.steps and (is_case or self.workload == "specimens" or self._is_process):
            raise WorkloadError(
                f"{' and '.join(self.steps)} would be ignored: they go with a command, and "
                f"workload {self.workload!r} is none."
            )
        return self._divided()

    def _divided(self) -> Workload:
        if self.workload not in _known_cases():
            return self
        if self.unit is not None and self.unit < _WORD:
            raise WorkloadError(f"unit is {self.unit}: a mapping has at least {_WORD} bytes.")
        share = self.threads * self._page_size
        if self.bytes % share:
            nearest = max(self.bytes // share, 1) * share
            raise WorkloadError(
                f"bytes {self.bytes} do not divide into {self.threads} tasks of whole pages: "
                f"use a multiple of {share}, such as {nearest}."
            )
        if self.needed_map_count > _MAX_MAP_COUNT:
            raise WorkloadError(
                f"bytes {self.bytes} in mappings of {self.mapping_bytes} need more mappings than "
                f"a process may have, vm.max_map_count at its highest ({_MAX_MAP_COUNT:,}): use "
                "fewer bytes, or a larger unit."
            )
        return self

    # ---- what it is ----

    @property
    def kind(self) -> Kind:
        """What kind of workload it is."""
        if self._is_process:
            return "pid"
        if self.workload == "specimens":
            return "specimens"
        return "case" if self.workload in cases() else "command"

    @property
    def _is_process(self) -> bool:
        return self.workload.startswith("pid:")

    @property
    def name(self) -> str:
        """A short name, without paths: of the case, of the program, or of the process's number."""
        first = shlex.split(self.workload)[0]
        return first.replace(":", "-") if first.startswith("pid:") else Path(first).name

    @property
    def pid(self) -> int:
        """The number of the running process."""
        return int(self.workload.removeprefix("pid:"))

    @property
    def holds(self) -> bool:
        """Whether it stops, its mappings alive, when it is done, until it is told to go."""
        return self.kind in ("case", "specimens")

    @property
    def program(self) -> str | None:
        """Which of our programs it is, if one."""
        return {"case": "vmload", "specimens": "specimens"}.get(self.kind)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that count for this kind of workload."""
        wanted = {"case": ("threads", "bytes", "unit"), "pid": ("seconds",)}.get(self.kind, ())
        # Named only where it is asked for: without it runs are as comparable as ever.
        touch = {"touch": self.touch} if self.kind == "case" and self.touch else {}
        own = {name: getattr(self, name) for name in wanted}
        return {"workload": self.workload, **own, **touch, **self.steps}

    def argv(self, program: str | None = None, *, hold: bool = False) -> list[str]:
        """Return the command; none for a running process.

        Parameters
        ----------
        program : str, optional
            The path to run it by, where that is not its name.
        hold : bool
            For our own programs: stop when done until standard input ends.
        """
        if self.kind == "pid":
            return []
        if self.kind == "command":
            words = shlex.split(self.workload)
            return [program or words[0], *words[1:]]
        words = [program or str(self.program), *(["--hold"] if hold else [])]
        if self.kind == "case":
            tasks = "-t" if "-t" in self._options else "-n"
            words += ["--case", self.workload, tasks, str(self.threads)]
            words += [] if self.unit is None else ["--unit", str(self.unit)]
            words += [] if self.touch is None else ["--touch", self.touch]
            words += [str(self.bytes // self.threads)]
        return words

    # ---- what it is expected to make ----

    def where_pages_are(self, page_size: int) -> Workload:
        """Return the same for a machine with pages of this size: a case counts in them.

        Raises
        ------
        WorkloadError
            When its tasks have no whole number of them.
        """
        there = self.model_copy()
        there._page_size = page_size
        return there._divided()

    @property
    def _options(self) -> list[str]:
        return cases()[self.workload].split()

    @property
    def mapping_bytes(self) -> int | None:
        """Bytes of one mapping of a case, the last of a task aside; None for anything else."""
        if self.kind != "case":
            return None
        share = self.bytes // self.threads
        options = self._options
        preset = options[options.index("--unit") + 1] if "--unit" in options else share
        return min(self.unit or int(preset) * self._page_size // mmap.PAGESIZE, share)

    @property
    def expected_vmas(self) -> int | None:
        """How many VMAs a case maps, in all its tasks; None where that is not known beforehand.

        With ``--prealloc`` there is one mapping, made before the tasks are; each process that is
        forked after it has a copy.
        """
        if self.mapping_bytes is None:
            return None
        if "--prealloc" in self._options:
            return 1 if "-t" in self._options else self.threads
        return self.threads * math.ceil(self.bytes // self.threads / self.mapping_bytes)

    @property
    def maps(self) -> str | None:
        """The origin of what it maps, by how it maps it; None where that is not known.

        A kernel may keep no file for a private mapping of /dev/zero; then its VMAs do not tell.
        """
        options = set(self._options) if self.kind == "case" else {"--file"}
        return None if options & _NOT_DEV_ZERO else "private /dev/zero"

    @property
    def expected_pages(self) -> int | None:
        """How many pages a case touches one after the other; None in random order or elsewhere."""
        options = self._options if self.kind == "case" else []
        if self.mapping_bytes is None or "--random" in options or "--prealloc" in options:
            return None
        whole, rest = divmod(self.bytes // self.threads, self.mapping_bytes)
        pages = whole * math.ceil(self.mapping_bytes / self._page_size)
        return self.threads * (pages + math.ceil(rest / self._page_size))

    @property
    def needed_map_count(self) -> int:
        """The vm.max_map_count it needs; 0 where that is not known."""
        if self.expected_vmas is None:
            return 0
        processes = 1 if "-t" in self._options else self.threads
        return self.expected_vmas // processes + _MAPPINGS_OF_A_PROGRAM

    # ---- what can only be known where it runs ----

    def check(self, target: Target) -> None:
        """Make sure, before anything runs, that it can be run on the target.

        Raises
        ------
        WorkloadError
            When there is no such program or process.
        SetupError
            When it is one of our own programs and not built.
        """
        if self.program:
            paths.program(self.program)
        elif self.kind == "pid":
            _check_process(target, self.pid)
        else:
            self.check_programs(target, self.argv()[0])


def _refuse_misspelt_case(words: list[str]) -> None:
    """Refuse a single word that nearly is a case and is no program."""
    if len(words) != 1 or not re.fullmatch(r"[\w-]+", words[0]):
        return
    known = [*_known_cases(), "specimens"]
    near = nearest(words[0], known)
    if near and words[0] not in known and shutil.which(words[0]) is None:
        raise WorkloadError(f"there is no workload {words[0]!r}: did you mean {near!r}?")


def _check_process(target: Target, pid: int) -> None:
    try:
        stat = target.read(f"/proc/{pid}/stat")
    except TargetError:
        raise WorkloadError(f"there is no process {pid} on target {target.name}.") from None
    if stat.rpartition(b")")[2].split()[0] in (b"Z", b"X"):
        raise WorkloadError(f"process {pid} on target {target.name} has ended already.")
