# SPDX-License-Identifier: GPL-2.0-only
"""The census of anon_vma: trees of a known shape come out as they were forked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from waiting import PATIENCE

from anonvma.tables import anon_vmas, census

PLACE = 0x7E0000000000


class Shape(NamedTuple):
    """A family as it must come out, and how many processes have the page."""

    processes: int
    depths: list[int]
    links: list[int]
    fan_out: int


# By hand, from anon_vma_fork(): a child's VMA is linked to all of its parent's anon_vmas and to
# one of its own, so each anon_vma to itself and all descendants.
SHAPES = {
    "chain": Shape(4, [0, 1, 2, 3], [1, 2, 3, 4], 1),
    "star": Shape(5, [0, 1, 1, 1, 1], [1, 1, 1, 1, 5], 4),
    "binary": Shape(7, [0, 1, 1, 2, 2, 2, 2], [1, 1, 1, 1, 3, 3, 7], 2),
    "exec": Shape(1, [0], [1], 0),
    # The anon_vma of the parent that is gone stays, for its child's VMA is linked to it, ...
    "reparented": Shape(2, [0, 1, 2], [1, 1, 2], 1),
    # ... and a grandchild uses it again (anon_vma_clone()), instead of one of its own.
    "reused": Shape(3, [0, 1, 2], [2, 2, 3], 1),
}


@pytest.fixture(scope="module")
def fork_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("tree") / "fork_tree"
    source = Path(__file__).parents[1] / "helpers" / "fork_tree.c"
    subprocess.run(["cc", "-Wall", "-Werror", "-o", program, source], check=True, timeout=PATIENCE)
    return program


def chains_of(fork_tree: Path, build: Path, shape: str, output: Path) -> pd.DataFrame:
    """The chains of the page of a tree of processes."""
    with subprocess.Popen(
        [fork_tree, shape], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as root:
        assert root.stdin and root.stdout
        count = SHAPES[shape].processes + (shape == "exec")
        pids = [root.stdout.readline().strip() for _ in range(count)]
        words = [word for pid in pids for word in ("--pid", pid)]
        command = [build / "vmaprobe", "census", *words, "--output", output]
        subprocess.run(command, check=True, timeout=PATIENCE)
        root.stdin.close()
    chains = census.read(output).chains
    return chains[chains["start"] == PLACE]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tree_comes_out_as_it_was_forked(
    fork_tree: Path, build: Path, tmp_path: Path, shape: str
) -> None:
    expected = SHAPES[shape]
    chains = chains_of(fork_tree, build, shape, tmp_path / "census")
    table = anon_vmas.anon_vmas(chains)
    assert sorted(table["depth"]) == expected.depths
    assert sorted(table["links"]) == expected.links
    assert (table["vmas"] == table["num_active_vmas"]).all()  # the kernel's own count
    (family,) = anon_vmas.families(chains).to_dict("records")
    assert family["anon_vmas"] == len(expected.depths)
    assert (family["processes"], family["fan_out"]) == (expected.processes, expected.fan_out)
    total = anon_vmas.total(chains)
    assert (total.vmas, total.families) == (expected.processes, 1)
    assert total.chains == sum(expected.links)


def test_the_chains_are_left_out_where_that_is_asked_for(build: Path, tmp_path: Path) -> None:
    pid, output = str(os.getpid()), tmp_path / "census"
    command = [build / "vmaprobe", "census", "--no-chains", "--pid", pid, "--output", output]
    subprocess.run(command, check=True, timeout=PATIENCE)
    found = census.read(output)
    assert found.vmas["anon_vma"].any() and found.chains.empty


def test_which_of_them_a_lazy_scheme_would_have_made() -> None:
    # (mm, start, anon_vma, own): 1 is shared by a fork, 2 has a page swapped out, 3 none, and of
    # 4 nobody knows; 5 is own to two VMAs of one process, of which one has a page swapped out.
    links = [(1, 16, 1, True), (2, 16, 1, False), (2, 16, 6, True), (1, 32, 2, True)]
    links += [(1, 48, 3, True), (1, 64, 4, True), (1, 80, 5, True), (1, 96, 5, True)]
    chains = pd.DataFrame(links, columns=["mm", "start", "anon_vma", "own"])
    chains = chains.assign(root=chains["anon_vma"].replace(6, 1), num_children=1)
    chains = chains.assign(parent=chains["root"], num_active_vmas=1)
    vmas = chains.loc[chains["own"], ["mm", "start"]]
    swapped = pd.array([7, 0, 2, 0, None, 0, 1], "UInt64")
    needs = anon_vmas.by_need(chains, vmas.assign(swapped=swapped))
    assert needs["anon_vmas"].tolist() == [1, 2, 2, 1] and needs["vmas"].sum() == 7
    assert needs["chains"].sum() == len(chains)
    anon_vmas.plot_by_need(chains, vmas.assign(swapped=swapped))


def test_no_anon_vma_at_all() -> None:
    names = ["mm", "tgid", "comm", "start", "anon_vma", "root", "parent", "own"]
    names += ["num_children", "num_active_vmas"]
    nothing = pd.DataFrame({name: pd.Series(dtype="int64") for name in names})
    assert anon_vmas.total(nothing) == (0, 0, 0, 0, 0, 0)
    assert anon_vmas.by_sharing(nothing).empty
    assert anon_vmas.by_need(nothing, nothing.assign(swapped=0)).empty
    assert anon_vmas.families(nothing).empty and anon_vmas.longest_chains(nothing).empty
    anon_vmas.plot_by_sharing(nothing)
    anon_vmas.plot_family_shapes(nothing)
