# SPDX-License-Identifier: GPL-2.0-only
"""A program with set-up, load and tear-down: a real server, by its own statistics, and killed."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import studies
from waiting import PATIENCE, until

from anonvma.base.errors import MissingProgram, WorkloadError
from anonvma.collect.collection import collect
from anonvma.collect.workload import Workload
from anonvma.run.runs import Run
from anonvma.tables import faults, programs
from anonvma.target.local import Local

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = 3000
REDIS = {
    "packages": "redis-server",
    "workload": 'redis-server --port 0 --unixsocket {scratch}/socket --dir {scratch} --save ""',
    "ready": "redis-cli -s {scratch}/socket ping",
    "load": f"""
        # writes, a child that writes a snapshot, and what the server itself counted
        redis-benchmark -s {{scratch}}/socket -q -n {REQUESTS} -t set
        redis-cli -s {{scratch}}/socket bgsave
        redis-cli -s {{scratch}}/socket info commandstats
    """,
    "teardown": "redis-cli -s {scratch}/socket shutdown",
}


@pytest.fixture(scope="module")
def place(build: Path) -> Iterator[Path]:
    """A TMPDIR of its own, for the path of a socket must be short; Redis is unpacked in build/."""
    with tempfile.TemporaryDirectory(prefix="t-", ignore_cleanup_errors=True) as name:
        top = Path(name)
        for directory in ("build", "local", "tmp"):
            (top / directory).mkdir()
        for built in build.iterdir():
            (top / "build" / built.name).symlink_to(built)
        (top / "build" / "programs").unlink(missing_ok=True)
        (top / "study.yaml").write_text("packages: redis-server\n")
        command = [ROOT / "analysis/setup/programs", top / "study.yaml", top / "build" / "programs"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(done.stderr.strip().splitlines()[-1].removeprefix("anonvma: "))
        yield top


@pytest.fixture(scope="module")
def here(place: Path) -> Iterator[Local]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANONVMA_BUILD", str(place / "build"))
        patch.setattr(tempfile, "tempdir", str(place / "local"))
        with Local() as local:
            yield local


def test_a_server_is_put_to_work_and_observed_alone(here: Local, place: Path) -> None:
    run = collect(here, Workload(**REDIS), repeats=1, out=place / "runs", perf_record=False)
    asked, kept = (
        {n: Workload(**p).commands(n) for n in p} for p in (REDIS, run.manifest.parameters)
    )
    assert kept == asked
    # By Redis's own count the load ran; what loaded it is in no table.
    said = run.raw("raw/repeat-1/steps").read_text()
    calls = re.search(r"cmdstat_set:calls=(\d+)", said)
    assert calls and int(calls[1]) == REQUESTS
    assert set(run.table("census")["comm"]) <= {"redis-server", "redis-rdb-bgsave"}
    traced = faults.traced(run)
    assert set(traced["comm"]) <= {"redis-server", "redis-rdb-bgsave"}
    assert float(traced["count"].astype("float64").sum()) > REQUESTS / 100
    assert not list(place.glob("local/*/scratch"))
    table = programs.survey({"redis": run})
    assert table.loc["redis", "faults"] > 0
    assert list(programs.explained({"redis": run}, {"x": "It is not here."}).index) == [
        "redis",
        "x",
    ]


def test_a_step_that_fails_is_told_and_leaves_no_server(here: Local, place: Path) -> None:
    token = processes.new_token()
    os.environ[processes.VARIABLE] = token
    try:
        wrong = {**REDIS, "load": "redis-cli -s {scratch}/socket -e nonsense"}
        with pytest.raises(WorkloadError, match=r"load of the workload: redis-cli failed .* 1: "):
            collect(here, Workload(**wrong), repeats=1, out=place / "runs", trace=False)
        never = {**REDIS, "workload": "redis-server --port 0 --nonsense", "load": None}
        with pytest.raises(WorkloadError, match=r"ended before it was ready, .* Bad directive"):
            collect(here, Workload(**never), repeats=1, out=place / "runs", trace=False)
        assert processes.carriers(token) == []
        assert not list(place.glob("local/*/scratch"))
    finally:
        del os.environ[processes.VARIABLE]


def test_killed_while_its_server_works_a_study_leaves_nothing_and_goes_on(place: Path) -> None:
    own = {**REDIS, "name": "redis"}
    slow = {**own, "load": f"redis-benchmark -s {{scratch}}/socket -q -n {REQUESTS << 30} -t set"}
    names = {"name": "killed", "defaults": {"repeats": 1, "trace": False, "profile": False}}
    output, token = place / "out", processes.new_token()
    environment = {**studies.environment(place), "ANONVMA_BUILD": str(place / "build")}
    environment |= {"TMPDIR": str(place / "tmp"), processes.VARIABLE: token}
    file = studies.write(place, **names, workloads=[slow])
    with subprocess.Popen(studies.command(file, output), env=environment) as process:
        until(lambda: any("redis-benchmark" in line for line in processes.carriers(token)))
        assert list(place.glob("tmp/*/scratch/socket"))
        process.kill()
    assert processes.survivors(token) == []
    # Snakemake's own is of the study, which may not be quite gone when its job looks.
    assert {path.name.split("-")[1] for path in place.glob("tmp/*")} <= {"snakemake"}
    file = studies.write(place, **names, workloads=[own])
    done = subprocess.run(
        studies.command(file, output), env=environment, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(Run.open(output / "cells" / "redis-1").table("census")["comm"]) >= {"redis-server"}
    assert list(place.glob("tmp/*")) == [] and processes.carriers(token) == []


def test_what_is_lacking_is_named_with_its_packages(here: Local) -> None:
    lacking = Workload(workload="cat", load="no-such-1", ready="no-such-2", packages="a b")
    with pytest.raises(MissingProgram, match=r"'no-such-2' and 'no-such-1' on .* packages a, b"):
        lacking.check(here)


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ({"load": "echo 'a"}, "load: .* is not a command line: No closing quotation"),
        ({"load": 5}, "load is 5: a text is needed"),
        ({"setup": "a\0b"}, "setup is .*: a text is needed"),
        ({"workload": "small-allocs-mt", "load": "true"}, "load would be ignored"),
        ({"workload": "specimens", "setup": "true"}, "setup would be ignored"),
        ({"workload": "pid:1", "ready": "true", "load": "true"}, "ready and load would be"),
    ],
)
def test_impossible_steps_are_refused(steps: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WorkloadError, match=sentence):
        Workload(**{"workload": "cat", **steps})


def test_braces_that_are_no_place_stay(here: Local, tmp_path: Path) -> None:
    file = tmp_path / "said"
    work = Workload(workload=f"sh -c 'echo {{scratch}} {{}} {{x}} ${{#}} >{file}'", setup="true")
    collect(here, work, repeats=1, out=tmp_path, trace=False, perf_record=False)
    place, *rest = file.read_text().split()
    assert place.endswith("/scratch") and rest == ["{}", "{x}", "0"]
