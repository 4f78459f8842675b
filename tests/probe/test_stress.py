# SPDX-License-Identifier: GPL-2.0-only
"""Many tasks on few processors: everything that is traced adds up with what the kernel counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import guests
import pytest
import stress

from anonvma.target.guest import Guest
from anonvma.target.local import Local

# In full, which takes an hour: make test-kernels ROUNDS=20 ARGS='-k preemptible'.
ROUNDS = int(os.environ.get("ROUNDS") or 1)


@pytest.mark.parametrize("load", stress.LOADS)
def test_nothing_is_lost_by_the_source_that_is_chosen(
    load: str, build: Path, odd_faults: Path
) -> None:
    with Local() as here:
        assert stress.Stress(here, build, odd_faults).reckon(load, "auto", scale=0.02) == []


# ---- kernels as people boot them ----


@pytest.fixture(scope="module", params=["6.18", "7.3"])
def preemptible(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A kernel whose tasks may be preempted anywhere."""
    image = guests.stock(request.param, modules=False)
    with Guest(image, accel="tcg", append="preempt=full") as booted:
        yield booted


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("source", "load"),
    [
        *(("auto", load) for load in stress.LOADS),
        *(("fentry", load) for load in ("small-allocs-mt", "churn")),
        ("tracepoint", "forking-server"),
    ],
)
def test_what_a_preemptible_kernel_hides_is_told(
    preemptible: Guest, build: Path, odd_faults: Path, source: str, load: str
) -> None:
    under = stress.Stress(preemptible, build, odd_faults)
    wrong = [under.reckon(load, source, scale=0.25) for _ in range(ROUNDS)]
    assert wrong == [[]] * ROUNDS
