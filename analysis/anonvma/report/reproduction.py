# SPDX-License-Identifier: GPL-2.0-only
"""How to repeat a run: everything that whoever has only the mail needs.

The kernel and its configuration, the versions, the hashes of the data, and commands that begin
in a new clone. The commands are complete: a test follows them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from anonvma.base import paths
from anonvma.base.section import Key, Section
from anonvma.run.manifest import Manifest
from anonvma.run.runs import Run
from anonvma.run.version import version

PUBLISH = ".venv/bin/anonvma publish latest"
"""What prints the verdict in the end."""

_PACKAGES = ("numpy", "pandas", "scipy", "pyarrow", "papermill")
_PAIR = ("early", "delayed")  # suffixes of the releases that `make kernels` builds


def commit_of(made_by: str) -> str | None:
    """Return the commit in a version such as ``0.1.0+g1234567890ab``, or None."""
    match = re.search(r"\+g([0-9a-f]{12})", made_by)
    return match[1] if match else None


def manifest_sha256(run: Run) -> str:
    """Return the hash of a run's manifest, in which is the hash of every other file."""
    return hashlib.sha256((run.path / "manifest.json").read_bytes()).hexdigest()


def manifests_sha256(every: Sequence[Run]) -> str:
    """Return the hash of the manifests of some runs, one after the other in their names' order."""
    ordered = sorted(every, key=lambda run: run.path.name)
    whole = b"".join((run.path / "manifest.json").read_bytes() for run in ordered)
    return hashlib.sha256(whole).hexdigest()


def section(
    opened: Sequence[Run], specimen_run: Run | None = None, analysed: bool = False
) -> Section:
    """Say how to repeat runs, so that nothing but these words is needed.

    With `analysed`, what analyses them here and now is part of it.
    """
    every = [*opened, *([specimen_run] if specimen_run else [])]
    return Section(
        "How to repeat it",
        words(opened, specimen_run, analysed),
        commands=commands(opened, analysed),
        sources=tuple(f"{run.id}/manifest.json" for run in every),
        key=Key.REPRODUCTION,
    )


# ---- in words ----


def words(
    opened: Sequence[Run], specimen_run: Run | None = None, analysed: bool = False
) -> list[str]:
    """Say what ran where, and with what; the commands of `commands` come after these.

    Parameters
    ----------
    opened : sequence of Run
    specimen_run : Run, optional
    analysed : bool
        Whether to say, too, what analyses them here and now.
    """
    said = list(dict.fromkeys(_machine(run.manifest) for run in opened))
    said.append(_versions(opened) + (f"; {_here()}." if analysed else "."))
    every = [*opened, *([specimen_run] if specimen_run else [])]
    said.append(_data(every))
    said.append(_clone(opened, analysed))
    return said


_FEW = 4  # runs whose hashes stand in a mail one by one


def _data(every: Sequence[Run]) -> str:
    """Name the data by hashes: of many runs by one, which two commands make again."""
    of = "manifest.json, which has that of its other files"
    if len(every) <= _FEW:
        hashes = "; ".join(f"{run.id} {manifest_sha256(run)}" for run in every)
        return f"Data, by the SHA-256 of each run's {of}: {hashes}."
    return (
        f"Data: {len(every)} runs, by the SHA-256 of what 'LC_ALL=C cat RUN/manifest.json ...' "
        f"prints of all of them in their names' order (each {of}): {manifests_sha256(every)}."
    )


def _machine(manifest: Manifest) -> str:
    facts = manifest.target
    guest = f", a guest ({facts['accel']})" if facts.get("kind") == "guest" else ""
    said = (
        f"Linux {facts['kernel_release']}, {facts['architecture']}{guest}: {facts['cpus']} CPUs "
        f"({facts.get('cpu_model') or 'of unknown model'}), {facts['memory_bytes'] / 2**30:.1f} "
        f"GiB, pages of {facts['page_size']} bytes; transparent huge pages "
        f"{facts.get('thp') or 'not configured'}, vm.overcommit_memory "
        f"{facts['overcommit_memory']}, vm.max_map_count {facts['max_map_count']}."
    )
    return f"{said} {_configuration(facts)}"


def _configuration(facts: dict[str, Any]) -> str:
    said = []
    if options := facts.get("config"):
        said.append(f"Configuration: {', '.join(_options(options))}.")
    if known := facts.get("config_sha256"):
        said.append(f"SHA-256 of the text of /proc/config.gz: {known}.")
    if image := facts.get("image_sha256"):
        said.append(f"SHA-256 of the kernel's image: {image}.")
    if (facts.get("append") or "") != "":
        said.append(f"Its command line had {facts['append']} appended.")
    return " ".join(said) or "The run does not say how this kernel was configured."


def _options(options: Mapping[str, str]) -> list[str]:
    """Return the options as they are set; of the models of preemption only those that are."""
    models = {k: v for k, v in options.items() if k.startswith("PREEMPT")}
    if set(models) == {"PREEMPT"}:  # an earlier run
        return [f"{k}={v}" for k, v in options.items()]
    chosen = [name for name, value in models.items() if value == "y"] or ["no preemption"]
    others = [f"{k}={v}" for k, v in options.items() if k not in models]
    return [*others, " and ".join(chosen)]


def _versions(opened: Sequence[Run]) -> str:
    made_by = list(dict.fromkeys(run.manifest.anonvma for run in opened))
    perf = list(dict.fromkeys(v for run in opened if (v := _fact(run, "perf_version"))))
    qemu = list(dict.fromkeys(v for run in opened if (v := _fact(run, "qemu_version"))))
    parts = [
        f"Collected by anonvma {', '.join(made_by)}",
        *([f"perf {', '.join(perf)}"] if perf else []),
        *([f"QEMU {', '.join(qemu)}"] if qemu else []),
    ]
    return ", ".join(parts)


def _here() -> str:
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return (
        f"analysed by anonvma {version()} with Python {platform.python_version()}, "
        f"{packages} (constraints.txt has the others)"
    )


def _fact(run: Run, name: str) -> str | None:
    value = run.manifest.target.get(name)
    return None if value is None else str(value)


def _clone(opened: Sequence[Run], analysed: bool) -> str:
    needs = "git, make, python3 3.11 or later, and root or sudo without a password"
    address = paths.project_url()
    where = f"In a new clone of {address or 'anonvma'}"
    if commit_of(opened[0].manifest.anonvma) is None:
        where += " (the run does not say which commit collected it"
        where += "; this one analysed it)" if analysed else ")"
    pid = "; PID is that of a process like it" if _is_of_process(opened[0].manifest) else ""
    return f"{where}, on a Debian or Ubuntu with {needs}{pid}:"


# ---- as commands ----


def commands(opened: Sequence[Run], analysed: bool = False) -> list[str]:
    """Return what to type in a new clone, in order; the last prints the verdict.

    Parameters
    ----------
    opened : sequence of Run
        What is to be repeated; runs alike in target and workload are one repetition.
    analysed : bool
        Whether the commit that analyses them stands in where none is known to have collected them.
    """
    made_by = opened[0].manifest.anonvma
    commit = commit_of(made_by) or (commit_of(version()) if analysed else None)
    typed = [f"git checkout {commit}"] if commit else []
    guests = {_guest_of(run) for run in opened}
    if guests <= {None}:
        return [*typed, *_local(opened[0].manifest)]
    arch = " ARCH=arm64" if any(map(_is_arm64, opened)) else ""
    typed.append(f"make venv build{arch}")
    if guests - {None, "IMAGE"}:
        typed.append(f"make kernels{arch}")
    if guests == set(_PAIR):
        cpus = opened[0].manifest.target["cpus"]
        return [*typed, f".venv/bin/anonvma pair --boots {_boots(opened)} --cpus {cpus}"]
    return [*typed, *_in_guests(opened)]


def _boots(opened: Sequence[Run]) -> int:
    return max(sum(_guest_of(run) == name for run in opened) for name in _PAIR)


def _is_arm64(run: Run) -> bool:
    return run.manifest.target.get("architecture") == "aarch64"


def _guest_of(run: Run) -> str | None:
    """Which kernel of the pair a run's was, ``IMAGE`` for any other image, None without one."""
    if run.manifest.target.get("kind") != "guest":
        return None
    release = str(run.manifest.target["kernel_release"])
    place = "arm64/" if _is_arm64(run) else ""
    names = (f"{place}{name}" for name in _PAIR if release.endswith(f"-{name}"))
    return next(names, "IMAGE")


def _local(manifest: Manifest) -> list[str]:
    parameters = manifest.parameters
    # The number of a process is its own: whoever repeats it has one of another number.
    # A run of somebody else's may lack its parameters.
    given = str(parameters.get("workload", manifest.workload.name))
    workload = "pid:PID" if _is_of_process(manifest) else given
    options = ["--workload", workload]
    for name in ("threads", "bytes", "unit", "seconds"):
        if parameters.get(name) is not None:
            options += [f"--{name}", _size(parameters[name])]
    options += ["--repeats", str(manifest.repeats)]
    if given == "specimens":
        return ["make venv build", *_collected("local", manifest)]
    # make takes a dollar for a variable of its own.
    arguments = shlex.quote(shlex.join(options).replace("$", "$$"))
    # What mmap_lock costs there is not in the report that is to be repeated.
    return [f"make report COST=0 ARGS={arguments}", PUBLISH]


def _is_of_process(manifest: Manifest) -> bool:
    return str(manifest.parameters.get("workload", "")).startswith("pid:")


def _size(number: object) -> str:
    """Write a number of bytes shortly, as usemem reads it: ``800m``."""
    for shift, suffix in ((30, "g"), (20, "m"), (10, "k")):
        if isinstance(number, int) and number and number % (1 << shift) == 0:
            return f"{number >> shift}{suffix}"
    return f"{number:g}" if isinstance(number, float) else str(number)


def _in_guests(opened: Sequence[Run]) -> list[str]:
    typed: list[str] = []
    for run in opened:
        name = _guest_of(run)
        file = "Image" if _is_arm64(run) else "bzImage"
        image = "IMAGE" if name in (None, "IMAGE") else f"build/kernels/{name}/{file}"
        typed += _collected(f"guest:{image}", run.manifest)
    return list(dict.fromkeys(typed))


def _collected(target: str, manifest: Manifest) -> list[str]:
    given = {"target": target, **manifest.parameters}
    if manifest.parameters.get("workload") != "specimens":  # made once, whatever is asked for
        given["repeats"] = manifest.repeats
    parameters = " ".join(
        f"-p {name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None
    )
    return [
        f".venv/bin/papermill notebooks/01-collect.ipynb build/collect.ipynb {parameters}",
        PUBLISH,
    ]
