# SPDX-License-Identifier: GPL-2.0-only
"""What anonvma does on a target, done over ssh; and no name of it anywhere in what is kept."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hosts
import nbformat
import pytest
import tools
from hosts import Host

from anonvma.base import paths
from anonvma.base.errors import WorkloadError
from anonvma.collect.collection import collect
from anonvma.collect.targets import parse
from anonvma.collect.workload import Workload
from anonvma.perf import features
from anonvma.run.runs import Run

pytestmark = pytest.mark.usefixtures("build")

SMALL = ["--case", "small-allocs-mt", "-t", "2", "1m"]  # each task maps and reads 1 MiB
PAGES = 2 * (1 << 20) // os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host whose user may use sudo."""
    sudoers = "alice ALL=(root) NOPASSWD: ALL"
    with hosts.host(tmp_path_factory.mktemp("hosts") / "box", sudoers=sudoers) as host:
        yield host
        assert host.leftovers() == []
    hosts.remove_keys()


def anonvma(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "anonvma", *words], capture_output=True, text=True, check=False
    )


def test_doctor_says_what_the_host_allows(box: Host) -> None:
    done = anonvma("doctor", "--json", "--target", box.target())
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["root"] and told["kernel"] == os.uname().release
    assert told["regime"]["name"] in ("none", "early", "delayed")
    assert "reached over ssh" in told["notes"][0]
    # without privilege it says what is lacking, and the rest all the same
    done = anonvma("doctor", "--target", box.target(sudo="no"))
    assert done.returncode == 0
    assert "sudo is not to be asked" in done.stderr and "pagemap_scan" in done.stdout


def test_a_census_is_the_host_s(box: Host) -> None:
    done = anonvma("census", "--json", "--target", box.target())
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    # its processes alone, for it has a namespace of them
    assert "sshd" in {row["comm"] for row in told["by_process"]}
    assert told["mms"] < 20


def test_faults_and_locks_are_traced_there(box: Host) -> None:
    vmload = str(tools.seen_there(paths.program("vmload")))
    done = anonvma("faults", "--json", "--target", box.target(), "--", vmload, *SMALL)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["by_origin"]
    (bare,) = (row for row in rows if row["origin"] == "private /dev/zero")
    assert bare["found bare"] == bare["left bare"] == PAGES
    done = anonvma("locks", "--json", "--target", box.target(), "--", "id", "-u")
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{hosts.UID}\n"  # it ran as the user
    assert sum(row["taken"] for row in json.loads(done.stdout)["callers"]) > 0


def test_no_such_host_is_one_sentence() -> None:
    done = anonvma("census", "--target", "ssh:-oProxyCommand=touch x")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("anonvma: ") and done.stderr.count("\n") == 1


def names_of(host: Host) -> list[bytes]:
    port = f":{host.port}"
    ours = f"{socket.gethostname()}\0"  # perf writes it with its NUL; it may be a common word
    names = [host.hostname, f"@{host.alias}", hosts.USER, host.address, port, ours]
    return [name.encode() for name in names]


def test_a_run_names_neither_the_host_nor_its_user(box: Host, tmp_path: Path) -> None:
    small = Workload(workload="small-allocs-mt", threads=2, bytes="2m")
    with parse(box.target()) as there:
        run = collect(there, small, repeats=1, out=tmp_path, perf_record=True)
    facts = run.manifest.target
    assert (facts["kind"], facts["privilege"]) == ("ssh", "sudo")
    census = run.table("census")
    zero = census[census["class"] == "zero-page"]
    assert zero["zero"].sum() == PAGES
    assert {"faults", "locks", "census", "repeats"} <= set(run.manifest.tables)
    kept = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(kept) > 8
    for path in kept:
        content = path.read_bytes()
        assert [name for name in names_of(box) if name in content] == [], path


def test_a_probe_with_capabilities_collects_without_root(box: Host, tmp_path: Path) -> None:
    if shutil.which("setcap") is None:
        pytest.skip("setcap is not installed (package libcap2-bin)")
    probe = box.path("/run/host/vmaprobe")
    shutil.copy(paths.program("vmaprobe"), probe)
    capabilities = "cap_bpf,cap_perfmon,cap_sys_ptrace,cap_syslog,cap_dac_read_search+ep"
    subprocess.run(["setcap", capabilities, probe], check=True)
    small = Workload(workload="small-allocs-mt", threads=2, bytes="2m")
    with parse(box.target(probe="/run/host/vmaprobe")) as there:
        run = collect(there, small, repeats=1, out=tmp_path, perf_record=False)
    assert run.manifest.target["privilege"] == "capabilities"
    assert any("only the probe was privileged" in note for note in run.manifest.notes)
    census = run.table("census")
    assert census[census["class"] == "zero-page"]["zero"].sum() == PAGES
    assert {"faults", "locks"} <= set(run.manifest.tables)


def test_a_workload_that_is_killed_there_is_told_from_one_that_fails(
    box: Host, tmp_path: Path
) -> None:
    with parse(box.target()) as there:
        for line, sentence in (
            ("kill -SEGV $$", "was killed by SIGSEGV"),
            ("exit 4", "failed with exit status 4"),
        ):
            workload = Workload(workload=f"sh -c '{line}'")
            with pytest.raises(WorkloadError, match=sentence):
                collect(there, workload, repeats=1, out=tmp_path, perf_record=False, trace=False)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_perf_s_recordings_lose_the_host_name_and_nothing_else(tmp_path: Path) -> None:
    perf = shutil.which("perf")
    data = tmp_path / "perf.data"
    if perf is None:
        pytest.skip("perf is not installed (package linux-perf)")
    done = subprocess.run(
        [perf, "record", "-q", "-e", "cpu-clock", "-o", data, "--", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"perf record fails: {done.stderr.strip()}")

    def header() -> list[str]:
        words = [perf, "report", "--header-only", "-i", str(data)]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        # Without the file's time, which perf takes for that of the recording.
        return [line for line in said.splitlines() if "captured on" not in line]

    before = header()
    assert f"# hostname : {socket.gethostname()}" in before
    features.blank_host_name(data)
    after = header()
    assert [line for line in before if line not in after] == [
        f"# hostname : {socket.gethostname()}"
    ]
    other = tmp_path / "other"
    other.write_bytes(b"PERFILE2" + bytes(96))
    features.blank_host_name(other)
    assert other.read_bytes() == b"PERFILE2" + bytes(96)


def test_the_notebooks_collect_there_and_report(box: Host, tmp_path: Path) -> None:
    first, last = tmp_path / "01.ipynb", tmp_path / "06.ipynb"
    parameters = {
        "target": box.target(),
        "bytes": "2m",
        "repeats": "1",
        "trace": "False",
        "out": str(tmp_path / "runs"),
    }
    words = [word for name, value in parameters.items() for word in ("-p", name, value)]
    papermill("01-collect", first, *words)
    (path,) = (tmp_path / "runs").iterdir()
    assert Run.open(path).manifest.target["kind"] == "ssh"
    papermill("06-report", last, "-p", "run", str(path))
    cells = nbformat.read(last, as_version=4).cells  # type: ignore[no-untyped-call]
    outputs = json.dumps([cell.get("outputs") for cell in cells]).encode()
    assert b"zero page" in outputs
    assert [name for name in names_of(box) if name in outputs] == []


def papermill(name: str, output: Path, *words: str) -> None:
    notebook = paths.root() / "notebooks" / f"{name}.ipynb"
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--cwd", notebook.parent]
    done = subprocess.run(
        [*command, notebook, output, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
