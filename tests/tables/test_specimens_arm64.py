# SPDX-License-Identifier: GPL-2.0-only
"""The recorded specimens of arm64 beside those of x86-64: each is in the same state."""

from __future__ import annotations

import pandas as pd

from anonvma.run import runs
from anonvma.tables import specimens


def states(name: str) -> pd.Series[str]:
    run = runs.find(name)
    found = specimens.observed(run.table("specimens"), run.table("census"))
    known: pd.Series[str] = found.set_index(["kind", "touch"])["state"]
    return known[~known.index.duplicated()]


def test_each_specimen_is_in_the_state_that_it_is_in_on_x86() -> None:
    both = pd.concat([states("arm64-specimens"), states("specimens")], axis=1, join="inner")
    assert len(both) > 150
    assert both[both.iloc[:, 0] != both.iloc[:, 1]].empty


def test_no_fault_of_theirs_was_missed() -> None:
    run = runs.find("arm64-specimens")
    assert (run.manifest.target["architecture"], run.manifest.target["page_size"]) == (
        "aarch64",
        4096,
    )
    (traced,) = (
        run.table("tracing").query("traced == 'events' or traced == 'faults'").to_dict("records")
    )
    assert (traced["source"], traced["preemption"]) == ("kprobe", "full")
    assert traced["counted"] == traced["used"] > 1000
    assert traced["faults_missed"] == traced["unaccounted"] == traced["misses"] == 0
