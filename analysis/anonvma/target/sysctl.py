# SPDX-License-Identifier: GPL-2.0-only
"""A sysctl that is raised for a while and put back, whoever is killed meanwhile."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path

from anonvma.base.errors import TargetError
from anonvma.target.target import Raised

_LOCKS = "/run/anonvma"
"""Where root keeps what it has raised, and the locks on that. Nobody else can open these: on a file
that can be read, such as the sysctl's own, anybody can hold a lock."""

# The only place that puts a sysctl back. It writes down what it will have raised before it does, so
# that whoever comes next can put it back if this shell is killed; the lock goes with it. Read
# through cat, and again if cat was killed: a shell's own read asks for a byte at a time, and a
# sysctl gives only its first read anything.
_GUARDIAN = r"""
trap '' INT TERM HUP PIPE
umask 077
look() { value=; until [ -n "$value" ]; do value=$(cat "$1"); done; }
mkdir -p "$3" || exit 1
if [ -L "$3" ] || [ ! -O "$3" ]; then echo "$3 is not root's"; exit 1; fi
chmod 700 "$3" && exec 9>>"$3/${1##*/}" || exit 1
noted="$3/${1##*/}"
if ! flock -n 9; then
	was=; who=; read -r was left who <"$noted"
	if [ "${was:-0}" -ge "$2" ]; then  # enough whether or not it is put back meanwhile
		look "$1"
		echo "raised $value $value"
		while read -r line; do :; done
		echo "restored $value"
		exit 0
	fi
	echo "waiting ${who:-?}"
	flock -w "$5" 9 || { echo "process ${who:-?} still has it raised"; exit 1; }
fi
was=; read -r was left who <"$noted"
if [ -n "$was" ]; then
	look "$1"
	if [ "$value" = "$left" ] && printf '%s\n' "$was" >"$1"; then echo "recovered $was $left"; fi
	: >"$noted"
fi
look "$1"; old=$value
if [ "$old" -ge "$2" ]; then
	flock -u 9
	echo "raised $old $old"
	while read -r line; do :; done
	echo "restored $old"
	exit 0
fi
echo "$old $2 $4" >"$noted"
printf '%s\n' "$2" >"$1" || { : >"$noted"; exit 1; }
echo "raised $old $2"
while read -r line; do :; done
look "$1"
if [ "$value" != "$2" ]; then : >"$noted"; echo "changed $value"; exit 0; fi
printf '%s\n' "$old" >"$1" && : >"$noted" && echo "restored $old"
"""

_PATIENCE = 60.0  # seconds that a run waits for another that has a sysctl raised
_SYSCTL_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")


def guardian_words(path: Path, value: int) -> list[str]:
    """Return the command of the guardian that has the sysctl at `path` at `value` or more."""
    return [
        "sh",
        "-c",
        _GUARDIAN,
        "sh",
        str(path),
        str(value),
        _LOCKS,
        str(os.getpid()),
        f"{_PATIENCE:g}",
    ]


class Guardian:
    """The process that runs `_GUARDIAN`."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self.pipes = popen  # a context manager that closes them and waits

    def __enter__(self) -> Guardian:
        return self

    def __exit__(self, *_: object) -> None:
        with self.pipes:
            assert self._popen.stdin is not None
            with suppress(BrokenPipeError):
                self._popen.stdin.close()

    def answer(self) -> str:
        """Return its next line: what it did, or why it could not."""
        assert self._popen.stdout is not None
        return self._popen.stdout.readline().decode(errors="replace").strip() or "no answer"

    def dismiss(self, raised: Raised) -> str | None:
        """Let it put the old value back; a sentence if it did not."""
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError):  # it is dead already; its answer will say so
            self._popen.stdin.close()
        said = self.answer()
        self._popen.wait()
        return put_back(raised, said)


def before_raising(name: str, said: str) -> str | None:
    """Return a sentence on what a guard does before it raises a sysctl; None if it does no more."""
    match said.split():
        case ["waiting", who]:
            return f"waiting for process {who}, which has {name} raised, for a minute at most."
        case ["recovered", was, left]:
            return f"a run that was killed had left {name} at {left}; it was put back to {was}."
    return None


def put_back(raised: Raised, said: str) -> str | None:
    """Return a sentence on what a guard said of a sysctl; None if it is what it was before."""
    if said == f"restored {raised.old}":
        return None
    if said.startswith("changed "):
        return (
            f"{raised.name} was {raised.old}, this run raised it to {raised.new}, someone else "
            f"set it to {said.split()[1]} meanwhile, and so it was left at that."
        )
    return f"{raised.name} was {raised.old} and could not be put back: {said}."


def put_back_after(raised: Raised, said: str) -> str | None:
    """Return a sentence if a new guard did what one that was killed did not do; None else."""
    if said != f"recovered {raised.old} {raised.new}":
        return None
    return (
        f"what was to put {raised.name} back was killed; it was put back to {raised.old} all the "
        "same."
    )


def sysctl_path(name: str) -> Path:
    """Return where a sysctl of this name would be.

    Raises
    ------
    TargetError
        When that is no name.
    """
    if not _SYSCTL_NAME.fullmatch(name):
        raise TargetError(f"{name!r} is not the name of a sysctl.")
    return Path("/proc/sys", *name.split("."))
