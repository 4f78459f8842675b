# SPDX-License-Identifier: GPL-2.0-only
"""anonvma.target.ssh on three hosts with networks of their own: cut, slow, contended, and lying."""

from __future__ import annotations

import concurrent.futures
import json
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import hosts
import pytest
import tools
from hosts import Cable, Host
from waiting import PATIENCE, until

from anonvma.base import paths
from anonvma.base.errors import TargetLost, WorkloadError
from anonvma.collect.collection import collect
from anonvma.collect.targets import parse
from anonvma.collect.workload import Workload
from anonvma.run.runs import Run

pytestmark = pytest.mark.usefixtures("build")

SMALL = Workload(workload="small-allocs-mt", threads=2, bytes="1m")
# Where a connection is meant to be lost; the rest has as much patience as a loaded machine needs.
HASTY = 8


class Lab:
    """Three hosts, each behind a cable."""

    def __init__(self, machines: list[Host], cables: list[Cable]) -> None:
        self.machines, self.cables = machines, cables


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with ExitStack() as stack:
        stack.callback(hosts.remove_keys)
        cables = stack.enter_context(hosts.cables(3))
        machines = [
            stack.enter_context(
                hosts.host(
                    tmp_path_factory.mktemp("lab") / "host",
                    namespace=cable.namespace,
                    address=cable.address,
                )
            )
            for cable in cables
        ]
        yield Lab(machines, cables)


def collected(target: str, out: Path) -> Run:
    with parse(target) as there:
        return collect(there, SMALL, repeats=1, out=out, perf_record=False, trace=False)


def failures(directory: Path) -> list[dict[str, object]]:
    found = sorted(directory.glob("*.failed/failure.json"))
    return [json.loads(path.read_bytes()) for path in found]


def test_hosts_work_side_by_side_and_each_serves_one_at_a_time(lab: Lab, tmp_path: Path) -> None:
    alone = "mkdir /tmp/held && sleep 0.3 && rmdir /tmp/held"

    def use(number: int) -> int:
        with parse(lab.machines[number % 3].target("root")) as there:
            return there.run(["sh", "-c", alone]).returncode

    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        assert list(pool.map(use, range(9))) == [0] * 9
        # ... and a run on each, at once
        targets = [machine.target("root") for machine in lab.machines]
        found = list(pool.map(collected, targets, [tmp_path / str(n) for n in range(3)]))
    for run, machine in zip(found, lab.machines, strict=True):
        assert int(run.table("census")["bare"].sum()) > 0
        assert machine.leftovers() == []


def test_a_cut_in_mid_run_is_a_failure_of_that_run_alone(lab: Lab, tmp_path: Path) -> None:
    machine, cable = lab.machines[0], lab.cables[0]
    sleeper = Workload(workload="sleep 600")
    with concurrent.futures.ThreadPoolExecutor() as pool, ExitStack() as mending:
        mending.callback(cable.mend)
        with parse(machine.target("root", patience=HASTY)) as there:
            running = pool.submit(
                collect, there, sleeper, repeats=1, out=tmp_path, perf_record=False, trace=False
            )
            until(lambda: any("sleep 600" in line for line in machine.processes()))
            cable.cut()
            # another host does not notice
            other = pool.submit(collected, lab.machines[1].target("root"), tmp_path / "other")
            with pytest.raises(TargetLost, match="the ssh target is lost") as caught:
                running.result(PATIENCE)
        # There, everything ends by itself, the cable still cut.
        machine.wait_until_clean()
        assert other.result(PATIENCE).manifest.target["kind"] == "ssh"
    (failure,) = failures(tmp_path)
    assert failure["error"] == "TargetLost"
    assert "its record is in" in str(caught.value)
    kept = json.dumps(failure)
    for name in (machine.hostname, machine.alias, machine.address):
        assert name not in kept
    assert isinstance(failure["target"], dict) and failure["target"]["kind"] == "ssh"
    assert list(tmp_path.glob("*/manifest.json")) == []
    # It is mended, and the next run is as any.
    assert collected(machine.target("root"), tmp_path).manifest.target["kind"] == "ssh"
    machine.wait_until_clean()


def test_a_short_cut_is_waited_out(lab: Lab) -> None:
    machine, cable = lab.machines[0], lab.cables[0]
    with parse(machine.target("root", patience=60)) as there:
        cable.cut()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waiting = pool.submit(there.run, ["echo", "through"])
            assert not concurrent.futures.wait([waiting], 3).done
            cable.mend()
            assert waiting.result(PATIENCE).stdout == b"through\n"
    assert machine.leftovers() == []


def test_a_machine_whose_plug_is_pulled_is_lost(lab: Lab, tmp_path: Path) -> None:
    machine = lab.machines[2]
    with parse(machine.target("root", patience=HASTY)) as there:
        # A failed command is something else.
        with pytest.raises(WorkloadError, match="failed with exit status 1"):
            collect(there, Workload(workload="false"), out=tmp_path, perf_record=False, trace=False)
        assert failures(tmp_path) == []
        threading.Timer(1, machine.pull_the_plug).start()
        with pytest.raises(TargetLost, match="the ssh target is lost"):
            collect(
                there, Workload(workload="sleep 600"), out=tmp_path, perf_record=False, trace=False
            )
        with pytest.raises(TargetLost):
            there.run(["true"])
    assert [failure["error"] for failure in failures(tmp_path)] == ["TargetLost"]
    with pytest.raises(TargetLost, match="does not answer"):
        parse(machine.target("root", patience=HASTY))
    machine.boot()
    assert collected(machine.target("root"), tmp_path).manifest.target["kind"] == "ssh"


def test_a_slow_cable_is_put_up_with(lab: Lab, tmp_path: Path) -> None:
    machine, cable = lab.machines[1], lab.cables[1]
    reason = cable.slow_down("8mbit")
    if reason:
        pytest.skip(f"{reason}; the slow proxy is tested all the same")
    with parse(machine.target("root", patience=60)) as there:
        made = there.place("made")
        there.run(["sh", "-c", f"head -c 1500000 /dev/urandom >{made}"])
        before = cable.held_back()
        there.pull(made, tmp_path / "made")
        assert cable.held_back() > before  # it was slow indeed
        assert (tmp_path / "made").stat().st_size == 1500000
    assert collected(machine.target("root", patience=60), tmp_path).manifest.target["kind"] == "ssh"


def test_a_slow_connection_with_a_long_way_is_put_up_with(tmp_path: Path) -> None:
    proxy = Path(__file__).parents[1] / "helpers" / "slow_proxy.py"
    command = shlex.join([sys.executable, str(proxy)])
    slow = f"Host box\nProxyCommand {command} %h %p 2000000 0.004"
    with hosts.host(tmp_path / "host", ssh_config=slow) as machine:
        with parse(machine.target("root", patience=60)) as there:
            assert there.facts()["link_round_trip_s"] > 0.008
            probe = there.push(paths.program("vmaprobe"))
            assert there.run([probe, "features", "--json"]).returncode == 0
        machine.wait_until_clean()


def test_a_host_that_lies_is_caught(tmp_path: Path) -> None:
    words = (Path(sys.executable), Path(__file__).parents[1] / "helpers" / "liar.py")
    forced = f"ForceCommand {' '.join(str(tools.seen_there(word)) for word in words)}"
    with hosts.host(tmp_path / "host", sshd_config=forced) as machine:
        with parse(machine.target("root")) as there:
            assert there.run(["echo", "small things are true"]).stdout == b"small things are true\n"
            made = there.place("made")
            there.run(["sh", "-c", f"head -c 100000 /dev/zero >{made}"])
            with pytest.raises(TargetLost, match="sent something other than what was read there"):
                there.pull(made, tmp_path / "made")
            assert not (tmp_path / "made").exists()
        for _ in range(2):  # whoever asks, and each time
            with pytest.raises(TargetLost, match="sent something other than what was read there"):
                collected(machine.target("root"), tmp_path / "runs")
        assert list((tmp_path / "runs").glob("*/manifest.json")) == []
        assert [each["error"] for each in failures(tmp_path / "runs")] == ["TargetLost"] * 2
        machine.wait_until_clean()


@pytest.mark.parametrize(
    "frame",
    [
        b"x" * 64,
        b"\x07\x00\x0f\xa5\x00\x00\x00\x00\x01\x00\x00\x00\x02",  # HELLO, and too short
        b"\x07\x00\x0f\xa5\x00\x00\x00\x00\x04\x00\x00\x00\x63\x00\x00\x00",  # HELLO, version 99
        b"\x02\x01\x0f\xa5\x01\x00\x00\x00\xff\xff\xff\x7f",  # DATA, too long
    ],
)
def test_a_host_that_talks_nonsense_is_lost(frame: bytes, tmp_path: Path) -> None:
    octal = "".join(f"\\{byte:03o}" for byte in frame)
    size = paths.program("anonvma-agent").stat().st_size
    forced = "ForceCommand sh /run/host/nonsense"
    with hosts.host(tmp_path / "host", sshd_config=forced) as machine:
        machine.path("/run/host/nonsense").write_text(
            "echo anonvma-ready /tmp/anonvma-agent.abc Linux $(uname -m) 0:0:0\n"
            f"head -c {size} >/dev/null\necho anonvma-serve root\nprintf '{octal}'\nsleep 100\n"
        )
        with pytest.raises(TargetLost, match="makes no sense"):
            parse(machine.target("root"))
