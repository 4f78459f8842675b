# SPDX-License-Identifier: GPL-2.0-only
"""Studies carried out: resumed, killed, failing, hostile; and once on real guests."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import studies
from processes import VARIABLE, new_token, survivors
from waiting import PATIENCE, until

from anonvma.base import paths
from anonvma.run import runs
from anonvma.study import matrix as study
from anonvma.study import runner

pytestmark = pytest.mark.usefixtures("build")


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, Any]:
    """What every study here has in common."""
    return {"name": "tiny", "notebook": studies.write_notebook(tmp_path).name}


def runs_by_cell(output: Path) -> dict[str, str]:
    """The run of every cell that is there; each of them opens."""
    found = {}
    for directory in output.glob("cells/*"):
        runs.Run.open(directory)
        found[directory.name] = json.loads((directory / "cell.json").read_bytes())["finished"]
    return found


def wait_for_tries(study: Path, count: int) -> None:
    until(lambda: len(studies.tries(study)) >= count)


def test_a_study_is_done_once_and_kept_together(tiny: dict[str, Any], tmp_path: Path) -> None:
    study = studies.write(tmp_path, **tiny, workloads=["a"], parameters={"threads": [1, 2]})
    output = tmp_path / "out"
    done = studies.run(study, output)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "Study tiny: 2 cells, 0 done, 2 to do."
    assert [line.split()[:2] for line in lines[1:]] == [
        ["[1/2]", "a-threads-1-1"], ["[2/2]", "a-threads-2-1"],
    ] or "a-threads-2-1" in lines[1]  # fmt: skip
    for name in ("a-threads-1-1", "a-threads-2-1"):
        cell = output / "cells" / name
        runs.Run.open(cell)
        assert "20260101T000000Z-copied" in (cell / "log.txt").read_text()
        notebook = json.loads((cell / "notebook.ipynb").read_bytes())
        assert all(c["execution_count"] for c in notebook["cells"] if c["cell_type"] == "code")
    text = (output / "report" / "report.txt").read_text()
    assert "All 2 cells are done" in text and "1 of threads 1, 1 of threads 2" in text
    assert "<title>anonvma: study tiny</title>" in (output / "report" / "report.html").read_text()
    before = runs_by_cell(output)
    again = studies.run(study, output)
    assert again.returncode == 0 and "2 done, 0 to do" in again.stderr
    assert runs_by_cell(output) == before
    assert len(studies.tries(study)) == 2


def states(file: Path, output: Path) -> Counter[str]:
    """How many cells are in which state; what ``--dry-run`` says."""
    study._tools.cache_clear()
    return Counter(runner.status(study.read(file), output).values())


def test_what_has_changed_is_done_again_and_nothing_else(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    file = studies.write(tmp_path, **tiny, workloads=["a", "b"])
    output = tmp_path / "out"
    assert states(file, output) == {"to do": 2}
    assert studies.run(file, output).returncode == 0
    assert states(file, output) == {"done": 2}
    # Cells are known by what they are, not by their names.
    file = studies.write(tmp_path, **tiny, workloads=["a", {"workload": "b", "name": "x"}, "c"])
    done = studies.run(file, output, "--dry-run")
    assert "3 cells on 1 host: 2 done, 1 to do." in done.stdout
    # A damaged run is none.
    (output / "cells" / "b-1" / "repeats.parquet").write_bytes(b"x")
    assert states(file, output) == {"done": 1, "changed": 1, "to do": 1}
    assert studies.run(file, output).returncode == 0
    assert Counter(studies.tries(file)) == {"a 1": 1, "b 1": 2, "c 1": 1}
    assert set(runs_by_cell(output)) == {"a-1", "x-1", "c-1"}
    assert (output / "superseded" / "x-1.1").is_dir()
    # Another notebook makes everything another thing; other outputs in it do not.
    notebook = tmp_path / "tiny.ipynb"
    content = json.loads(notebook.read_bytes())
    content["metadata"]["x"] = 1
    notebook.write_text(json.dumps(content))
    assert states(file, output) == {"done": 3}
    content["cells"][1]["source"] = ["pass\n", *content["cells"][1]["source"]]
    notebook.write_text(json.dumps(content))
    assert states(file, output) == {"changed": 3}


def test_a_lost_target_is_a_failure_of_its_cell_alone(tiny: dict[str, Any], tmp_path: Path) -> None:
    study = studies.write(tmp_path, **tiny, workloads=["lose", "a", "lose-once"])
    output = tmp_path / "out"
    done = studies.run(study, output, "--json")
    assert done.returncode == 1, done.stderr
    told = studies.events(done)
    assert Counter(studies.tries(study)) == {"lose 1": 2, "a 1": 1, "lose-once 1": 2}
    assert told[0]["event"] == "plan" and told[-1]["event"] == "end"
    assert told[-1]["done"] == 2 and told[-1]["failed"] == {"lose-1": "the guest panicked"}
    failed = [event for event in told if event["event"] == "failed"]
    assert [e["again"] for e in failed if e["cell"] == "lose-1"] == [True, False]
    for event in failed:
        record = output / event["record"]
        assert json.loads((record / "failure.json").read_bytes())["reason"] == event["reason"]
        assert (record / "log.txt").exists() and (record / "notebook.ipynb").exists()
    text = (output / "report" / "report.txt").read_text()
    assert "2 of 3 cells are done" in text and "the guest panicked" in text
    # The same command tries what failed, and nothing else, again.
    studies.run(study, output)
    assert Counter(studies.tries(study)) == {"lose 1": 4, "a 1": 1, "lose-once 1": 2}


def test_a_late_target_is_ended(tiny: dict[str, Any], tmp_path: Path) -> None:
    study = studies.write(tmp_path, **tiny, workloads=["hang"], timeout="20s", retries=0)
    output, token = tmp_path / "out", new_token()
    environment = {**studies.environment(tmp_path), VARIABLE: token}
    words = studies.command(study, output)
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "it took longer than 20 s, the study's time-out" in done.stderr
    assert (output / "failed" / "hang-1.1" / "notebook.ipynb").exists()
    assert survivors(token) == []


def test_other_failures_are_not_tried_again(tiny: dict[str, Any], tmp_path: Path) -> None:
    loads = ["fail", "die", "nothing", "a"]
    study = studies.write(tmp_path, **tiny, workloads=loads, retries=2)
    output = tmp_path / "out"
    done = studies.run(study, output, "--keep-going")
    assert done.returncode == 1
    # None of these is tried again: they would fail alike.
    assert sorted(studies.tries(study)) == sorted(f"{load} 1" for load in loads)
    for sentence in ("there is no such thing", "kernel was killed", "left 0 runs, not one"):
        assert sentence in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_nothing_is_begun_after_such_a_failure(tiny: dict[str, Any], tmp_path: Path) -> None:
    slow = [{"workload": "slow", "name": f"slow{n}", "threads": n} for n in (1, 2, 3)]
    for seed in range(100):  # an order that begins with the failure
        file = studies.write(tmp_path, **tiny, workloads=["fail", *slow], seed=seed)
        cells = [cell.name for cell in study.read(file).cells]
        if cells[0] == "fail-1":
            break
    done = studies.run(file, tmp_path / "out")
    assert done.returncode == 1 and "the same command tries the rest again" in done.stdout
    # What Snakemake had begun by then is done; it had not begun everything.
    assert cells[-1] not in runs_by_cell(tmp_path / "out")


def test_ctrl_c_stops_and_the_same_command_goes_on(tiny: dict[str, Any], tmp_path: Path) -> None:
    study = studies.write(
        tmp_path, **tiny, workloads=["slow"], parameters={"threads": [1, 2, 3, 4]}
    )
    output, token = tmp_path / "out", new_token()
    process = subprocess.Popen(
        studies.command(study, output),
        env={**studies.environment(tmp_path), VARIABLE: token},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_tries(study, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "Interrupted: 1 of 4 cells are done" in said
    assert survivors(token) == []
    before = runs_by_cell(output)
    assert len(before) == 1 and not list((output / "work").glob("*/"))
    assert studies.run(study, output).returncode == 0
    after = runs_by_cell(output)
    assert len(after) == 4 and before.items() <= after.items()


def kill(victim: str, process: subprocess.Popen[Any], token: str) -> None:
    """Kill the command itself, Snakemake, or whoever works on a cell."""
    words = {"snakemake": b"-m\0snakemake", "cell": b"-m\0anonvma.cell"}.get(victim)
    if words is None:
        process.kill()
        return
    mark = f"{VARIABLE}={token}".encode()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            ours = mark in (directory / "environ").read_bytes().split(b"\0")
            if ours and words in (directory / "cmdline").read_bytes():
                os.kill(int(directory.name), signal.SIGKILL)
        except OSError:  # it ended meanwhile
            continue


def kill_and_resume(study: Path, output: Path, moments: list[float], cells: int) -> None:
    """Kill a study at these moments, then let it end: nothing is lost, nothing is done twice."""
    token = new_token()
    environment = {**studies.environment(study.parent), VARIABLE: token}
    seen: dict[str, str] = {}
    for number, moment in enumerate(moments):
        victim = ("anonvma", "snakemake", "cell")[number % 3]
        with (study.parent / "said").open("ab") as said:
            process = subprocess.Popen(
                studies.command(study, output), env=environment, stdout=said, stderr=said
            )
            time.sleep(moment)
            kill(victim, process, token)
            if victim == "cell":  # which alone ends nothing
                time.sleep(1)
                process.kill()
            process.wait()
        now = runs_by_cell(output)
        assert seen.items() <= now.items(), "a run that was done is gone, or another"
        seen = now
    # At once, while what the last one left may still be ending.
    done = studies.run(study, output)
    assert done.returncode == 0, done.stderr
    assert survivors(token) == []
    now = runs_by_cell(output)
    assert seen.items() <= now.items() and len(now) == cells
    manifests = list(output.rglob("manifest.json"))
    assert len(manifests) == cells, "a run is there that belongs to no cell"
    assert not (output / "superseded").exists()
    assert (output / "report" / "report.txt").exists()


def test_killed_at_random_moments(tiny: dict[str, Any], tmp_path: Path) -> None:
    parameters = {"threads": [1, 2, 3]}
    study = studies.write(tmp_path, **tiny, workloads=["a", "slow"], parameters=parameters)
    moments = [random.uniform(3, 9) for _ in range(3)]
    kill_and_resume(study, tmp_path / "out", moments, 6)


@pytest.mark.kernels
def test_two_kernels_killed_five_times(tmp_path: Path) -> None:
    """2 kernels x 3 workloads x 3 thread counts, a boot each, by one command."""
    images = {k: str(paths.build() / "kernels" / k / "bzImage") for k in ("early", "delayed")}
    study = studies.write(
        tmp_path,
        targets=["guest:{kernel},memory=512M"],
        kernels=images,
        workloads=["small-allocs-mt", {"workload": "anon-w-seq-mt", "unit": "40k"},
                   "anon-r-rand-mt"],
        parameters={"threads": [1, 2, 4]},
        defaults={"bytes": "4m", "trace": False, "repeats": 1},
        timeout="5m",
    )  # fmt: skip
    output = tmp_path / "out"
    kill_and_resume(study, output, [random.uniform(4, 25) for _ in range(5)], 18)
    # Each kernel did in each cell what it does: 1,024 read faults found a bare VMA.
    for threads in (1, 2, 4):
        for kernel, aborts in (("early", 1024), ("delayed", 0)):
            run = runs.Run.open(output / "cells" / f"{kernel}-small-allocs-mt-threads-{threads}-1")
            assert run.manifest.features["regime"]["name"] == kernel
            vmstat = run.table("vmstat").set_index("counter")["difference"]
            assert aborts <= vmstat["vma_lock_abort"] < aborts + 100
    text = (output / "report" / "report.txt").read_text()
    assert "small-allocs-mt, threads 4" in text and "1 of early, 1 of delayed" in text


def test_two_at_once_are_refused_and_other_directories_too(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    study = studies.write(tmp_path, **tiny, workloads=["a"])
    output = tmp_path / "out"
    output.mkdir()
    held = os.open(output, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # as a batch does
    second = studies.run(study, output)
    os.close(held)
    assert second.returncode == 2 and "another anonvma batch works in" in second.stderr
    assert not list(output.iterdir())
    (output / "cells.json").write_text('{"study": "tiny"}')
    other = studies.write(tmp_path, **{**tiny, "name": "other"}, workloads=["a"])
    done = studies.run(other, output)
    assert done.returncode == 2 and "is of study 'tiny'" in done.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    done = studies.run(other, tmp_path / "full")
    assert done.returncode == 2 and "holds other things ('letter.txt')" in done.stderr


def test_cells_of_one_machine_take_turns_and_hosts_do_not(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    """The notebook does not care what its target is, so ssh targets need no hosts here."""
    targets = {"here": "local", "lab1": "ssh:one", "lab2": "ssh:two"}
    study = studies.write(tmp_path, **tiny, targets=targets, workloads=["slow"], repeats=2)
    done = studies.run(study, tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    running: Counter[str] = Counter()
    together = 0
    for event in studies.events(done):
        host = event.get("cell", "").split("-")[0]
        if event["event"] == "started":
            running[host] += 1
            assert running[host] == 1
            together = max(together, running.total())
        elif event["event"] == "done":
            running[host] -= 1
    assert together >= 2


def test_a_cluster_is_given_the_same_cells(tiny: dict[str, Any], tmp_path: Path) -> None:
    """The executor for any cluster, its submit command a plain shell: a real job script."""
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "config.yaml").write_text(
        "executor: cluster-generic\ncluster-generic-submit-cmd: 'sh'\njobs: 2\nlatency-wait: 30\n"
    )
    study = studies.write(tmp_path, **tiny, workloads=["a", "lose-once"])
    output = tmp_path / "out"
    done = studies.run(study, output, "--profile", "profile")
    if shlex.quote(sys.executable) != sys.executable:
        assert done.returncode == 2 and "Snakemake does not quote it" in done.stderr
        return
    assert done.returncode == 0, done.stderr + (output / "snakemake.log").read_text()
    assert set(runs_by_cell(output)) == {"a-1", "lose-once-1"}
    assert Counter(studies.tries(study)) == {"a 1": 1, "lose-once 1": 2}


HOSTILE = "$(touch pwned); `touch pwned` '; touch pwned; ' && touch pwned {x} {{y}} %s"


def test_nothing_in_a_study_is_run_that_is_no_workload(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    directory = tmp_path / "$(touch pwned) {threads};'"
    directory.mkdir()
    for name in ("anonvma.py", "json.py", "papermill.py"):  # what a current directory could slip in
        (directory / name).write_text("raise SystemExit('pwned')")
    notebook = studies.write_notebook(directory)
    image = directory / "$(touch pwned).bzImage"
    image.touch()
    study = studies.write(
        directory,
        name="tiny",
        notebook=notebook.name,
        targets={"a": f"ssh:-oProxyCommand={HOSTILE}", "b": "guest:{kernel}"},
        kernels={"k": image.name},
        workloads=[{"workload": HOSTILE, "name": HOSTILE}],
        parameters={"threads": [HOSTILE, 1]},
    )
    output = directory / "out $(touch pwned) {cell}"
    done = studies.run(study, output, cwd=directory)
    assert "pwned" not in {path.name for path in tmp_path.rglob("*")}
    assert done.returncode == 2 and "threads" in done.stderr  # no number of threads is like this
    study = studies.write(
        directory,
        name="tiny",
        notebook=notebook.name,
        targets={"a": f"ssh:-oProxyCommand={HOSTILE}", "b": "guest:{kernel}"},
        kernels={"k": image.name},
        workloads=[{"workload": HOSTILE, "name": HOSTILE}],
    )
    done = studies.run(study, output, cwd=directory)
    assert done.returncode == 0, done.stderr
    assert "pwned" not in {path.name for path in tmp_path.rglob("*")}
    for cell in (output / "cells").iterdir():
        notebook_done = json.loads((cell / "notebook.ipynb").read_bytes())
        assert any("ProxyCommand" in "".join(c["source"]) for c in notebook_done["cells"]) or (
            "b-k-" in cell.name
        )
    assert len(list((output / "cells").iterdir())) == 2
