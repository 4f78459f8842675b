# SPDX-License-Identifier: GPL-2.0-only
"""Page faults and acquisitions of mmap_lock of a command, or of processes that run."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from anonvma.base import paths, scratch
from anonvma.base.errors import AnonvmaError, ProbeError, TargetError
from anonvma.base.text import printable
from anonvma.cli import options
from anonvma.cli.group import given_in, json_of, main
from anonvma.cli.probing import require_privilege
from anonvma.collect import targets
from anonvma.probe.vmaprobe import Vanished, named, require_success
from anonvma.target import local as local_module
from anonvma.target import target

if TYPE_CHECKING:
    import pandas as pd

    from anonvma.base.section import Whole


def _traced(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that the tracers share."""
    for add in (
        click.argument("command", nargs=-1, type=click.UNPROCESSED),
        options.target,
        options.as_json,
        click.option(
            "--seconds",
            type=click.FloatRange(0, 1e6, min_open=True, max_open=True),
            default=10.0,
            show_default=True,
            help="With --pid: how long to look.",
        ),
        options.pids("This process instead of a command; may be repeated."),
    ):
        function = add(function)
    return function


@main.command(name="faults")
@_traced
@click.option(
    "--source",
    type=click.Choice(["auto", "fentry", "kprobe", "tracepoint"]),
    default="auto",
    show_default=True,
    help="How to trace; auto is what misses nothing: fentry where the kernel allows it and is not "
    "preemptible, else kprobe.multi, else the tracepoints, which have no times.",
)
def faults_command(
    pids: tuple[int, ...],
    seconds: float,
    as_json: bool,
    where: str,
    command: tuple[str, ...],
    source: str,
) -> None:
    """Page faults of COMMAND, or of processes that run: what they found and left.

    And which lock each was taken under, why that was mmap_lock, and what a kernel with the other
    check would have made of them. Write "--" before a COMMAND with options of its own. Its output
    goes to standard error.
    """
    traced_there = _trace(where, ["faults", "--source", source], pids, seconds, command)
    from anonvma.probe import faults_file
    from anonvma.tables import faults, losses  # slow, and not needed until now

    found = faults_file.read_faults(traced_there)
    mine = _processes_of(command, found.processes)
    traced = found.faults[found.faults["process"].isin(mine)].assign(repeat=1)
    tables = {
        "transitions": faults.transitions(traced),
        "by_mode": faults.by_mode(traced, unseen := found.header["unseen_gup"]),
        "by_origin": faults.by_origin(traced),
        "lock_paths": faults.lock_paths(traced),
        "reasons": faults.reasons(traced),
        "counterfactual": faults.counterfactual(traced),
    }
    if as_json:
        click.echo(json_of({**found.header, "losses": found.losses}, tables))
        _end()
    heads = (
        "By what they found and left, and how they ended",
        "By who took them",
        "Handled, on anonymous VMAs, by origin",
        "Handled, of user mode, by lock",
        "Why mmap_lock was acquired",
        "Found bare: an early check sends them to mmap_lock, a delayed one spares some",
    )
    said = [
        losses.counted_said(found.header),
        faults.reasons_said(traced, found.header["why_no_reasons"]),
        losses.lost_said(found.losses, unseen),
        losses.refused_said(found.header["refused"]),
    ]
    shown_gup = int(traced.loc[traced["mode"] == "gup", "count"].sum())
    heading = f"{int(traced['count'].sum()) - shown_gup:,} page faults"
    if gup := shown_gup + int(unseen):
        heading += f", and {gup:,} fault{'s' * (gup != 1)} of get_user_pages()"
    wholes = faults.wholes(traced, unseen) | {"reasons": faults.reasons_whole(traced)}
    _show(heading, said, heads, tables, wholes)


_LOCKS = 12  # rows of contended ones


@main.command(name="locks")
@_traced
def locks_command(
    pids: tuple[int, ...], seconds: float, as_json: bool, where: str, command: tuple[str, ...]
) -> None:
    """Who took mmap_lock while COMMAND ran, or processes were watched, and how long each waited.

    And which locks were contended, each by its name; who waited for the lock of a VMA, and which
    page faults failed for it; and what each fork locked, copied and kept waiting. Write "--" before
    a COMMAND with options of its own. Its output goes to standard error.
    """
    traced_there = _trace(where, ["locks"], pids, seconds, command)
    from anonvma.probe import locks_file

    # slow, and not needed until now
    from anonvma.tables import contended, forks, locks, losses, vma_locks

    found = locks_file.read_locks(traced_there)
    mine = _processes_of(command, found.processes) | {0}
    taken = found.locks[found.locks["process"].isin(mine)].assign(repeat=1)
    waited = found.contended[found.contended["process"].isin(mine)].assign(repeat=1)
    forked = found.forks[found.forks["process"].isin(mine)].assign(repeat=1)
    tables = {
        "callers": locks.callers(taken),
        "contended": contended.by_name(waited),
        "vma_lock_writers": vma_locks.by_caller(waited),
        "vma_lock_waits": vma_locks.waits(waited),
        "forks": forks.by_program(forked),
    }
    if as_json:
        tables["each_vma"] = vma_locks.each(waited)
        click.echo(json_of({**found.header, "losses": found.losses}, tables))
        _end()
    titles = (
        "By who took it",
        "Contended locks, by name",
        "Locks of VMAs acquired for writing",
        "Writers of VMAs that waited for readers, and readers that failed for a writer",
        "Forks",
    )
    wholes = {
        "callers": locks.whole(taken),
        "contended": contended.whole(waited, _LOCKS),
        "vma_lock_writers": vma_locks.whole_by_caller(waited),
        "vma_lock_waits": vma_locks.whole(waited),
        "forks": forks.whole(forked),
    }
    tables["contended"] = tables["contended"].head(_LOCKS)
    said = [
        "Times are from asking to having it, in ns unless they say otherwise.",
        forks.said(forked),
        contended.known_said(found.header),
        vma_locks.known_said(found.header),
        losses.lost_said(found.losses),
        losses.witness_said(found.header),
    ]
    heading = f"mmap_lock was taken {int(tables['callers']['taken'].sum()):,} times"
    shown = {name: table for name, table in tables.items() if name == "callers" or len(table)}
    heads = [head for head, name in zip(titles, tables, strict=True) if name in shown]
    _show(heading, said, heads, shown, wholes)


def _trace(
    where: str, words: list[str], pids: tuple[int, ...], seconds: float, command: tuple[str, ...]
) -> bytes:
    """Run a tracer on a target and return what it wrote.

    The command line ends with the exit status of COMMAND, as perf stat does: `_end` sees to it.
    """
    if bool(pids) == bool(command):
        raise click.UsageError("name processes by --pid, or a COMMAND, and not both.")
    if command and "seconds" in given_in(click.get_current_context()):
        raise click.UsageError("--seconds would be ignored: a COMMAND is traced to its end.")
    if command and where == "local" and not (shutil.which(command[0]) or Path(command[0]).exists()):
        raise ProbeError(f"there is no program {command[0]!r}.", 127)  # as a shell ends
    with targets.parse(where) as there:
        require_privilege(there)
        probe, output = there.push(paths.program("vmaprobe")), there.place("traced")
        words = [probe, *words, "--output", output]
        if pids:
            words += [*named(pids), "--seconds", f"{seconds:g}"]
            watched = ", ".join(f"{_name_of(there, pid)} ({pid})" for pid in pids)
            click.echo(f"watching {watched} for {seconds:g} s ...", err=True)
        else:
            words += ["--", *there.as_caller(), *command]
        done = _run_with_our_input(there, words) if command else there.run(words, privileged=True)
        click.echo(done.stdout, err=True, nl=False)
        if not there.exists(output):
            require_success(done)
        click.echo(done.stderr, err=True, nl=False)
        if command and done.returncode:
            ended = f"{command[0]} ended with exit status {done.returncode}"
            if done.returncode in (126, 127):  # as a shell says it
                raise ProbeError(f"{ended}, as what cannot be run does.", done.returncode)
            click.echo(f"anonvma: {ended}.", err=True)
            click.get_current_context().meta[_STATUS] = done.returncode
        with scratch.directory("observe") as directory:
            local = directory / "traced"
            there.pull(output, local)
            return local.read_bytes()


_STATUS = "anonvma.status"


def _end() -> NoReturn:
    """End as the traced COMMAND did, after all was shown."""
    context = click.get_current_context()
    context.exit(context.meta.get(_STATUS, 0))


def _name_of(there: target.Target, pid: int) -> str:
    """Return what a process is called.

    Raises
    ------
    WorkloadError
        When there is none.
    """
    try:
        name = there.read(f"/proc/{pid}/comm").decode(errors="backslashreplace").strip()
    except TargetError:
        raise Vanished(f"there is no process {pid} on target {there.name}.") from None
    return printable(name)


def _run_with_our_input(
    there: target.Target, words: list[str]
) -> subprocess.CompletedProcess[bytes]:
    """Run a command on a target, to its end, with the standard input that we were given."""
    here = isinstance(there, local_module.Local)
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    streams["stdin"] = _our_input() if here else subprocess.PIPE
    with there.start(words, privileged=True, **streams) as process:
        if here:
            stdout, stderr = process.communicate()
            return subprocess.CompletedProcess(words, process.wait(), stdout, stderr)
        threading.Thread(target=_feed, args=(process,), daemon=True).start()
        assert process.stdout is not None and process.stderr is not None
        with concurrent.futures.ThreadPoolExecutor(1) as reader:
            said = reader.submit(process.stderr.read)
            stdout = process.stdout.read()
        return subprocess.CompletedProcess(words, process.wait(), stdout, said.result())


def _our_input() -> int:
    """Our standard input, or nothing where it is no file, as in a notebook."""
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return subprocess.DEVNULL


def _feed(process: target.Process) -> None:
    """Pass on what we are given until that ends, or until the command reads no more."""
    assert process.stdin is not None
    source = _our_input()
    with contextlib.suppress(OSError, ValueError, AnonvmaError):
        while source >= 0 and (piece := os.read(source, 65536)):
            process.stdin.write(piece)
            process.stdin.flush()
        process.stdin.close()


def _processes_of(command: tuple[str, ...], processes: pd.DataFrame) -> set[int]:
    """Return the numbers of the command's processes, or of all that were named."""
    from anonvma.collect.tracing import workload_processes

    return workload_processes(processes, Path(command[0]).name if command else "")


def _show(
    heading: str,
    said: list[str],
    heads: Sequence[str],
    tables: dict[str, pd.DataFrame],
    wholes: dict[str, Whole],
) -> None:
    from anonvma.base.section import Section
    from anonvma.base.tabular import terminal_width
    from anonvma.report import layout

    parts = [
        Section(head, [], table, whole=wholes[name])
        for head, (name, table) in zip(heads, tables.items(), strict=True)
    ]
    parts.append(Section("How it was traced", [each for each in said if each]))
    click.echo(layout.text(parts, heading, terminal_width()), nl=False)
    _end()
