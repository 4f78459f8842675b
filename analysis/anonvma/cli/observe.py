# SPDX-License-Identifier: GPL-2.0-only
"""What a target has now: what it allows, its VMAs, page faults and acquisitions of mmap_lock."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from anonvma.base import paths, scratch
from anonvma.base.errors import AnonvmaError, PrivilegeError, ProbeError, SetupError, TargetError
from anonvma.cli.completion import Target
from anonvma.cli.group import json_of, main
from anonvma.collect import targets
from anonvma.target import local as local_module
from anonvma.target import target

_VANISHED = 5  # vmaprobe's exit code for a process that is gone

if TYPE_CHECKING:
    import pandas as pd

    from anonvma.base.section import Whole
    from anonvma.probe.census_file import Census


# ---- what this machine can do ----


@main.command()
@click.option(
    "--target", "where", type=Target(), default="local", show_default=True, help="Where to look."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def doctor(where: str, as_json: bool) -> None:
    """What the target's kernel allows, with the reason and the remedy where it does not.

    It also tells its regime, that is which lock page faults take there, by taking some.
    """
    from anonvma.collect import regime

    try:
        program = paths.program("vmaprobe")
    except SetupError as error:
        _survey(where, as_json, error)
        return
    with targets.parse(where) as there:
        argv = [there.push(program), "features"]
        privileged = _can_be_privileged(there)
        done = there.run([*argv, *(["--json"] if as_json else [])], privileged=privileged)
        _pass_on(done)
        found = regime.NO_PRIVILEGE
        if privileged:
            found = regime.observe(there)
    if as_json:
        told = {**json.loads(done.stdout), "regime": found._asdict(), "notes": there.notes}
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(done.stdout.decode(), nl=False)
    click.echo(f"{'regime':22} {found.name or 'unknown'}: {found.evidence}")
    for note in there.notes:
        click.echo(note)


def _survey(where: str, as_json: bool, error: SetupError) -> None:
    """Say what can be known without the probe, which needs a compiler to be built."""
    from anonvma.target import survey

    if where != "local":  # guests and far machines get the probe from here
        raise error
    with targets.parse(where) as here:
        found = survey.without_probe(here)
    unknown = (
        f"{error} Only the probe can say the rest, such as which lock page faults take here. "
        "Without a compiler 'anonvma demo' shows a report from recorded data."
    )
    if as_json:
        facts = {fact.name: {"has": fact.has, "what": fact.said} for fact in found}
        click.echo(json.dumps({"without_probe": facts, "unknown": unknown}, indent=2))
        return
    for fact in found:
        click.echo(f"{fact.name:22} {'yes' if fact.has else 'no':4} {fact.said}")
    click.echo(f"anonvma: {unknown}", err=True)


def _can_be_privileged(there: target.Target) -> bool:
    """Whether the target gives us privilege; doctor reports either way."""
    try:
        there.require_privilege()
    except AnonvmaError as error:
        click.echo(f"anonvma: {error} What follows is what you can do without.", err=True)
        return False
    return True


def _pass_on(done: subprocess.CompletedProcess[bytes]) -> None:
    if done.returncode:
        sentence = done.stderr.decode(errors="backslashreplace").strip().removeprefix("vmaprobe: ")
        raise ProbeError(
            sentence or f"vmaprobe ended with exit status {done.returncode}.",
            done.returncode if 0 < done.returncode < 128 else 1,
        )


# ---- a census now ----


@main.command()
@click.option(
    "--pid",
    "pids",
    type=click.IntRange(1),
    multiple=True,
    help="Only this process; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@click.option(
    "--most", default=15, show_default=True, type=click.IntRange(0), help="Processes listed."
)
@click.option(
    "--target", "where", type=Target(), default="local", show_default=True, help="Where to look."
)
def census(pids: tuple[int, ...], as_json: bool, most: int, where: str) -> None:
    """Bare VMAs of all processes, or of some, right now.

    Needs root, or sudo without a password, on the target.
    """
    found = _take_census(where, pids)
    from anonvma.base.tabular import terminal_width
    from anonvma.report import answer  # slow, and not needed until now
    from anonvma.report import sections as report
    from anonvma.tables import census as tables_of

    tables = {
        "by_class": tables_of.by_class(found.vmas).reset_index(),
        "by_origin": tables_of.by_origin(found.vmas).reset_index(),
        "by_process": tables_of.by_process(found.vmas, most).reset_index(),
    }
    own = found.vmas["tgid"].isin(_own(found, where))
    if as_json:
        click.echo(json.dumps(_census_json(found, tables), indent=2))
        return
    tables = {name: _without_other(table) for name, table in tables.items()}
    heads = ("Bare VMAs by class", "Anonymous VMAs by origin", "Address spaces with most bare VMAs")
    said = []
    if own.any():
        tables["by_process"] = _marked(tables["by_process"], _own(found, where))
        said = [
            f"{int(own.sum()):,} of the VMAs are of this command itself, marked * where listed."
        ]
    wholes = tables_of.wholes(found.vmas, most)
    parts = [
        report.Section(head, said if name == "by_process" else [], table, whole=wholes[name])
        for head, (name, table) in zip(heads, tables.items(), strict=True)
    ]
    lost = tables_of.losses(found.losses)
    lost = lost[lost["count"] > 0]
    said = [f"{row.count} {row.lost}" for row in lost.itertuples(index=False)]
    parts.append(report.Section("Lost while reading", said or ["Nothing."]))
    if beware := tables_of.alarm(found.vmas):
        said = [answer.alarm_said(beware)]
        parts.insert(0, report.Section("Not as on any kernel known", said))
    heading = (
        f"{len(found.vmas):,} VMAs of {len(found.mms):,} address spaces, "
        f"Linux {found.header['release']}"
    )
    click.echo(report.text(parts, heading, terminal_width()), nl=False)


def _without_other(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the class of what cannot be told where there is none: the table fits 80 columns."""
    return table.drop(columns="other") if "other" in table and not table["other"].any() else table


def _own(found: Census, where: str) -> set[int]:
    """Return the processes of this very command: itself, where it looks at its own machine."""
    probes = found.vmas.loc[found.vmas["comm"] == "vmaprobe", "tgid"]
    return {int(tgid) for tgid in probes} | ({os.getpid()} if where == "local" else set())


def _marked(table: pd.DataFrame, own: set[int]) -> pd.DataFrame:
    """Mark the rows of this command's own processes."""
    names = [
        f"{comm} *" if tgid in own else comm
        for comm, tgid in zip(table["comm"], table["tgid"], strict=True)
    ]
    return table.assign(comm=names)


def _take_census(where: str, pids: tuple[int, ...]) -> Census:
    """Take a census of a target now, of all processes or of some."""
    with targets.parse(where) as there, scratch.directory("observe") as directory:
        _require_privilege(there)
        output = there.place("census")
        named = [word for pid in pids for word in ("--pid", str(pid))]
        probe = there.push(paths.program("vmaprobe"))
        _pass_on(there.run([probe, "census", *named, "--output", output], privileged=True))
        local = directory / "census"
        there.pull(output, local)
        from anonvma.probe import census_file

        return census_file.read(local)


def _require_privilege(there: target.Target) -> None:
    """Say with the refusal what can be seen all the same."""
    try:
        there.require_privilege()
    except PrivilegeError as error:
        raise PrivilegeError(
            f"{error} 'anonvma demo' shows the same of recorded data, without privilege."
        ) from None


def _census_json(found: Census, tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    from anonvma.tables import census as tables_of

    beware = tables_of.alarm(found.vmas)
    return {
        "release": found.header["release"],
        "vmas": len(found.vmas),
        "mms": len(found.mms),
        "pages_how": found.header["pages_how"],
        "alarm": beware._asdict() if beware else None,
        "losses": found.losses,
        **{name: json.loads(table.to_json(orient="records")) for name, table in tables.items()},
    }


# ---- faults and locks now ----


def _traced(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that the tracers share."""
    for add in (
        click.argument("command", nargs=-1, type=click.UNPROCESSED),
        click.option(
            "--target",
            "where",
            type=Target(),
            default="local",
            show_default=True,
            help="Where to look.",
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables."),
        click.option(
            "--seconds", default=10.0, show_default=True, help="With --pid: how long to look."
        ),
        click.option(
            "--pid",
            "pids",
            type=click.IntRange(1),
            multiple=True,
            help="This process instead of a command; may be repeated.",
        ),
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

    And which lock each was taken under, and what a kernel with the other check would have made of
    them. Write "--" before a COMMAND with options of its own. Its output goes to standard error.
    """
    traced_there = _trace(where, ["faults", "--source", source], pids, seconds, command)
    from anonvma.probe import faults_file
    from anonvma.report import sections as report
    from anonvma.tables import faults, losses  # slow, and not needed until now

    found = faults_file.read_faults(traced_there)
    mine = _processes_of(command, found.processes)
    traced = found.faults[found.faults["process"].isin(mine)].assign(repeat=1)
    tables = {
        "transitions": faults.transitions(traced),
        "by_origin": faults.by_origin(traced),
        "lock_paths": faults.lock_paths(traced),
        "counterfactual": faults.counterfactual(traced),
    }
    if as_json:
        click.echo(json_of({**found.header, "losses": found.losses}, tables))
        _end()
    heads = (
        "By what they found and left, and how they ended",
        "Handled, on anonymous VMAs, by origin",
        "Handled, of user mode, by lock",
        "Found bare: an early check sends them to mmap_lock, a delayed one spares some",
    )
    said = [
        losses.counted_said(found.header),
        losses.lost_said(found.losses, found.header["unseen_gup"]),
        losses.refused_said(found.header["refused"]),
    ]
    heading = f"{int(traced['count'].sum()):,} page faults"
    _show(heading, said, heads, tables, faults.wholes(traced), report)


@main.command(name="locks")
@_traced
def locks_command(
    pids: tuple[int, ...], seconds: float, as_json: bool, where: str, command: tuple[str, ...]
) -> None:
    """Who took mmap_lock while COMMAND ran, or processes were watched, and how long each waited.

    Write "--" before a COMMAND with options of its own. Its output goes to standard error.
    """
    traced_there = _trace(where, ["locks"], pids, seconds, command)
    from anonvma.probe import faults_file
    from anonvma.report import sections as report
    from anonvma.tables import locks, losses  # slow, and not needed until now

    found = faults_file.read_locks(traced_there)
    mine = _processes_of(command, found.processes) | {0}
    taken = found.locks[found.locks["process"].isin(mine)].assign(repeat=1)
    table = locks.callers(taken)
    if as_json:
        click.echo(json_of({**found.header, "losses": found.losses}, {"callers": table}))
        _end()
    said = [
        "Times are from asking to having it, in ns unless they say otherwise.",
        losses.lost_said(found.losses),
        losses.witness_said(found.header),
    ]
    heading = f"mmap_lock was taken {int(table['taken'].sum()):,} times"
    wholes = {"callers": locks.whole(taken)}
    _show(heading, said, ("By who took it",), {"callers": table}, wholes, report)


def _trace(
    where: str, words: list[str], pids: tuple[int, ...], seconds: float, command: tuple[str, ...]
) -> bytes:
    """Run a tracer on a target and return what it wrote.

    The command line ends with the exit status of COMMAND, as perf stat does: `_end` sees to it.
    """
    if bool(pids) == bool(command):
        raise click.UsageError("name processes by --pid, or a COMMAND, and not both.")
    if command and where == "local" and not (shutil.which(command[0]) or Path(command[0]).exists()):
        raise ProbeError(f"there is no program {command[0]!r}.", 127)  # as a shell ends
    with targets.parse(where) as there:
        _require_privilege(there)
        probe, output = there.push(paths.program("vmaprobe")), there.place("traced")
        words = [probe, *words, "--output", output]
        if pids:
            words += [word for pid in pids for word in ("--pid", str(pid))]
            words += ["--seconds", f"{seconds:g}"]
            watched = ", ".join(f"{_name_of(there, pid)} ({pid})" for pid in pids)
            click.echo(f"watching {watched} for {seconds:g} s ...", err=True)
        else:
            words += ["--", *there.as_caller(), *command]
        done = _run_with_our_input(there, words) if command else there.run(words, privileged=True)
        click.echo(done.stdout, err=True, nl=False)
        if not there.exists(output):
            _pass_on(done)
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
        raise ProbeError(f"there is no process {pid} on target {there.name}.", _VANISHED) from None
    return "".join(c if c.isprintable() else "?" for c in name)


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
    report: ModuleType,
) -> None:
    from anonvma.base.tabular import terminal_width

    parts = [
        report.Section(head, [], table, whole=wholes[name])
        for head, (name, table) in zip(heads, tables.items(), strict=True)
    ]
    parts.append(report.Section("How it was traced", [each for each in said if each]))
    click.echo(report.text(parts, heading, terminal_width()), nl=False)
    _end()
