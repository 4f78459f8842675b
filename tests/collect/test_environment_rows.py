# SPDX-License-Identifier: GPL-2.0-only
"""Drift: what the machine tells of itself, and that it names nobody."""

from __future__ import annotations

import gzip
import os
import platform
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made import MadeRun

from anonvma.base.errors import TargetError, TargetLost
from anonvma.collect import environment
from anonvma.compare import conditions
from anonvma.compare import environment as differing
from anonvma.run import runs
from anonvma.target.local import Local


def test_snapshot_is_what_proc_and_sys_say() -> None:
    with Local() as here:
        found = environment.snapshot(here, constant=True)
    thp = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if thp.exists():
        assert f"[{found['thp.enabled']}]" in thp.read_text()
    overcommit = Path("/proc/sys/vm/overcommit_memory").read_text().strip()
    assert found["vm.overcommit_memory"] == overcommit
    assert 0 <= float(found["load.1min"]) < 10_000
    assert float(found["since_boot.busy_s"]) > 0
    assert re.fullmatch("[0-9a-f]{12}", str(found["cmdline.hash"]))


class Fake:
    """A target that has these files; the real ones are above and below."""

    name = "fake"

    def __init__(self, files: dict[str, bytes], lost: bool = False) -> None:
        self.files, self.lost = files, lost

    def read(self, path: str) -> bytes:
        if self.lost:
            raise TargetLost("gone.")
        if path not in self.files:
            raise TargetError(f"cannot read {path}.")
        return self.files[path]


def snapshot(files: dict[str, bytes]) -> environment.Facts:
    return environment.snapshot(Fake(files), constant=True)  # type: ignore[arg-type]


def test_command_line_is_a_hash_without_what_names_the_disk() -> None:
    words = b"BOOT_IMAGE=/vmlinuz-secret root=UUID=1234 mitigations=off user=joe quiet"
    found = snapshot({"/proc/cmdline": words})
    same = snapshot({"/proc/cmdline": words.replace(b"1234", b"5678")})
    other = snapshot({"/proc/cmdline": words.replace(b"quiet", b"debug")})
    assert found["cmdline.hash"] == same["cmdline.hash"] != other["cmdline.hash"]
    assert found["cmdline.mitigations=off"] == "yes"
    assert not re.search("secret|1234|joe", str(found))


def test_configuration_is_a_hash_and_a_few_options() -> None:
    text = b'CONFIG_PER_VMA_LOCK=y\nCONFIG_LOCALVERSION="-joe"\n# CONFIG_NUMA is not set\n'
    found = snapshot({"/proc/config.gz": gzip.compress(text)})
    assert found["config.PER_VMA_LOCK"] == "y" and found["config.DEBUG_VM"] == "n"
    renamed = snapshot({"/proc/config.gz": gzip.compress(text.replace(b"joe", b"jim"))})
    assert renamed["config.hash"] == found["config.hash"]
    boot = {"/proc/sys/kernel/osrelease": b"6.1-x\n", "/boot/config-6.1-x": text}
    assert snapshot(boot)["config.hash"] == found["config.hash"]
    assert "config.hash" not in snapshot({"/proc/config.gz": b"damaged"})
    assert "config.hash" not in snapshot({"/proc/sys/kernel/osrelease": b"../../etc/passwd"})


def test_frequency_and_temperature_where_they_are_to_be_had() -> None:
    cpu, zone = "/sys/devices/system/cpu/cpu{}/cpufreq/scaling_cur_freq", "/sys/class/thermal/"
    found = snapshot({
        cpu.format(0): b"1000000\n", cpu.format(1): b"3000000\n",
        f"{zone}thermal_zone0/temp": b"40000\n", f"{zone}thermal_zone1/temp": b"55500\n",
    })  # fmt: skip
    assert found["frequency.mhz"] == 2000 and found["temperature.max_c"] == 55.5
    assert "frequency.mhz" not in snapshot({}) and "load.1min" not in snapshot({})


def test_a_target_that_is_lost_is_not_passed_over() -> None:
    with pytest.raises(TargetLost):
        environment.snapshot(Fake({}, lost=True))  # type: ignore[arg-type]


def test_rows_have_before_after_and_what_was_spent_between() -> None:
    before = {"load.1min": 1.0, "since_boot.busy_s": 10.0, "host.since_boot.steal_s": 1.0}
    after = {"load.1min": 2.0, "since_boot.busy_s": 12.5, "host.since_boot.steal_s": 1.0}
    table = pd.DataFrame(environment.rows(3, {**before, "thp.enabled": "never"}, after))  # type: ignore[arg-type]
    found = table.set_index(["moment", "fact"])["number"]
    assert found["before", "load.1min"] == 1 and found["after", "load.1min"] == 2
    assert found["during", "during.busy_s"] == 2.5 and found["during", "host.during.steal_s"] == 0
    assert set(table["repeat"]) == {3} and not table["fact"].str.contains("since_boot").any()
    assert table.loc[table["fact"] == "thp.enabled", "word"].tolist() == ["never"]


# ---- afterwards ----


def test_a_busy_neighbour_is_seen_on_the_host() -> None:
    """Six processes burned a CPU beside each of these boots."""
    found = differing.differences(conditions.find(["plain=other-plain-*", "busy=other-busy-*"]))
    assert "host.load.running" in set(found["fact"])
    none = differing.differences(conditions.find(["plain=other-plain-*", "pages=other-pages-*"]))
    assert not set(none["fact"]) & {"thp.enabled", "cmdline.hash", "config.hash"}


def test_kernels_of_one_configuration_have_one_hash() -> None:
    sides = conditions.find(["early-small-allocs-mt-*", "delayed-small-allocs-mt-*"])
    told = pd.concat([differing.of_repeats(each) for each in sides.values()])
    assert told.loc[told["fact"] == "config.hash", "word"].nunique() == 1


def made(facts: dict[str, list[float | str]]) -> list[Any]:
    found = []
    for place in range(len(next(iter(facts.values())))):
        rows = environment.rows(1, {name: values[place] for name, values in facts.items()}, {})
        tables = {"environment": pd.DataFrame(rows)}
        found.append(MadeRun(tables, name=f"run-{place}"))
    return found


def test_settings_that_differ_and_states_that_lie_apart_are_shown() -> None:
    base = made({"thp.enabled": ["never", "never"], "load.1min": [1.0, 1.2], "smt": ["on", "on"],
                 "frequency.mhz": [2000.0, 2100.0]})  # fmt: skip
    head = made({"thp.enabled": ["always", "never"], "load.1min": [5.0, 6.0], "smt": ["on", "on"],
                 "frequency.mhz": [2050.0, 2200.0]})  # fmt: skip
    found = differing.differences({"base": base, "head": head}).set_index("fact")
    assert found.index.tolist() == ["load.1min", "thp.enabled"]
    assert found.loc["thp.enabled", ["base", "head"]].tolist() == ["never", "always, never"]
    assert found.loc["load.1min", "head"] == "5.5 [5, 6]"
    # One run a side has no range.
    assert differing.differences({"base": base[:1], "head": head[1:]}).empty


def test_runs_from_before_it_was_recorded_are_read_all_the_same() -> None:
    old = runs.find_all("other-again-*")
    assert differing.of_repeats(old).empty
    assert differing.differences({"a": old, "b": old}).empty


def test_recorded_environments_name_nobody() -> None:
    told = differing.of_repeats(runs.find_all("other-*"))
    words = " ".join(map(str, told["word"].dropna().unique()))
    assert "/" not in words
    for name in {platform.node(), os.environ.get("USER", "")} - {""}:
        assert not re.search(rf"\b{re.escape(name)}\b", words)
