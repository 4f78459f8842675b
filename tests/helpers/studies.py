# SPDX-License-Identifier: GPL-2.0-only
"""Studies for tests: a notebook that takes a second and does what its workload says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import yaml
from waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "data" / "recorded" / "early-small-allocs-mt-1"

_PARAMETERS = """\
target = "local"
workload = ""
out = None
threads = 1
"""
_BODY = """\
import os, shutil, signal, time
from pathlib import Path
from anonvma.base.errors import MissingProgram, TargetLost, WorkloadError
marks = Path(os.environ["TEST_MARKS"])
with (marks / "tries").open("a") as file:
    print(f"{workload} {threads}", file=file)
if workload == "lose":
    raise TargetLost("the guest panicked")
if workload == "lose-once" and not (marks / "lost").exists():
    (marks / "lost").touch()
    raise TargetLost("the guest panicked")
if workload == "lack":
    raise MissingProgram("it is not here")
if workload == "fail":
    raise WorkloadError("there is no such thing")
if workload == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if workload == "hang":
    time.sleep(600)
if workload == "slow":
    time.sleep(3)
if workload != "nothing":
    shutil.copytree(RECORDED, Path(out) / "20260101T000000Z-copied")
"""


def write_notebook(directory: Path) -> Path:
    """A notebook that copies a recorded run, or fails in the way that `workload` names."""
    book = nbformat.v4
    cell = book.new_code_cell(_PARAMETERS)  # type: ignore[no-untyped-call]
    cell.metadata["tags"] = ["parameters"]
    body = book.new_code_cell(f"RECORDED = {str(RECORDED)!r}\n{_BODY}")  # type: ignore[no-untyped-call]
    notebook = book.new_notebook(cells=[cell, body])  # type: ignore[no-untyped-call]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "x", "language": "python"}
    path = directory / "tiny.ipynb"
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    return path


def write(directory: Path, **keys: Any) -> Path:
    """A study file."""
    path = directory / "study.yaml"
    path.write_text(yaml.safe_dump(keys, sort_keys=False))
    return path


def command(study: Path, output: Path, *words: str) -> list[str]:
    """The command line that carries a study out; like bin/anonvma not with what lies around."""
    python = [sys.executable, "-P", "-m", "anonvma"]
    return [*python, "batch", str(study), "--output", str(output), *words]


def environment(marks: Path) -> dict[str, str]:
    """What the notebook needs, and where the machine's lock lies: other tests have their own."""
    marks.chmod(0o700)  # or it is not taken for a place of this user alone
    own = {"TEST_MARKS": str(marks), "TMPDIR": str(marks), "XDG_RUNTIME_DIR": str(marks)}
    return {**os.environ, **own}


def run(
    study: Path, output: Path, *words: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Carry a study out, to its end."""
    return subprocess.run(
        command(study, output, *words),
        capture_output=True,
        text=True,
        env=environment(study.parent),
        cwd=cwd or study.parent,
        timeout=3 * PATIENCE,  # twelve boots take minutes where nothing else runs
    )


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What ``--json`` printed."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def tries(study: Path) -> list[str]:
    """Workload and threads of every execution of the notebook, in order."""
    file = study.parent / "tries"
    return file.read_text().splitlines() if file.exists() else []
