# SPDX-License-Identifier: GPL-2.0-only
"""The picture of an address space: nothing gets lost in it, whatever its extent."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from anonvma.explore import address_map
from anonvma.explore.address_map import PIXELS, STATE_COLOURS, Axis, columns
from anonvma.explore.filter import STATES, Filter
from anonvma.explore.selection import Vmas
from anonvma.run import runs

TOP = 1 << 47  # of a process on x86-64


def census(starts: list[int], ends: list[int], classes: list[str | None] | None = None) -> Vmas:
    """VMAs of one process; bare ones where they have a class, with vm_ops else."""
    bare = [name is not None for name in classes or [None] * len(starts)]
    frame = pd.DataFrame(
        {
            "mm": np.ones(len(starts), np.uint32),
            "tgid": np.full(len(starts), 7, np.uint32),
            "comm": pd.Categorical(["made"] * len(starts)),
            "start": np.array(starts, np.uint64),
            "end": np.array(ends, np.uint64),
            "bytes": np.array(ends, np.uint64) - np.array(starts, np.uint64),
            "anonymous": bare,
            "bare": bare,
            "class": pd.Categorical(classes or [None] * len(starts), categories=list(STATES[:4])),
        }
    )
    return Vmas(frame, 4096)


def shares_of(vmas: Vmas, wanted: Filter, compressed: bool) -> np.ndarray:
    chosen = vmas.select(wanted)
    (space,) = address_map.spaces(vmas.select(Filter()))
    axis = Axis(space.start, space.end, compressed)
    return columns(space, address_map._kinds(space, chosen), axis)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[int], list[int], list[str | None]]:
    """Pages ascending without overlap, some side by side and some terabytes apart."""
    count = draw(st.integers(1, 40))
    at, starts, ends = draw(st.integers(0, 1 << 20)), [], []
    for _ in range(count):
        at += draw(st.sampled_from([0, 0, 1, 17, 1 << 18, 1 << 28]))
        starts.append(at * 4096)
        at += draw(st.sampled_from([1, 2, 10, 512, 1 << 18]))
        ends.append(at * 4096)
    classes = draw(st.lists(st.sampled_from([*STATES[:4], None]), min_size=count, max_size=count))
    return starts, ends, classes


@given(layouts(), st.booleans())
def test_every_pixel_adds_up(
    layout: tuple[list[int], list[int], list[str | None]], compressed: bool
) -> None:
    shares = shares_of(census(*layout), Filter(), compressed)
    assert (shares >= 0).all()
    assert (shares.sum(axis=0) <= 1 + 1e-6).all()
    # What there is of each state is in the picture, and what there is not is not.
    classes = layout[2]
    for number, state in enumerate(STATES):
        there = state in classes if state != "vm_ops" else None in classes
        wide = shares[1 + number].sum() > 0
        assert wide == there or (there and not compressed)  # to scale one page may be too little


@given(layouts())
def test_axis_only_ever_grows(layout: tuple[list[int], list[int], list[str | None]]) -> None:
    start, end = (np.array(edge) / 4096 for edge in layout[:2])
    for compressed in (True, False):
        axis = Axis(start, end, compressed)
        at = axis.at(np.sort(np.concatenate([start, end])))
        assert at[0] == 0 and at[-1] == pytest.approx(1)
        assert (np.diff(at) >= 0).all()
        assert axis.page(axis.at(start)) == pytest.approx(start)
    assert (Axis(start, end).at(end) > Axis(start, end).at(start)).all()


def test_from_one_page_to_the_whole_of_it() -> None:
    one = shares_of(census([4096], [8192], ["zero-page"]), Filter(), True)
    assert one[1] == pytest.approx(np.ones(PIXELS))
    whole = shares_of(census([0, TOP - 4096], [4096, TOP], ["guard", "zero-page"]), Filter(), True)
    assert whole[1 + STATES.index("guard")].sum() > 10
    assert whole[1 + STATES.index("zero-page")].sum() > 10
    assert 0 < (whole.sum(axis=0) == 0).sum() < PIXELS  # the gap is there, and not all
    one_to_scale = shares_of(census([0], [TOP], ["untouched"]), Filter(), False)
    assert one_to_scale.sum() == pytest.approx(PIXELS)


def test_one_in_a_million_is_seen() -> None:
    """A single zero-page VMA among a million guards has its colour in the picture."""
    count, lonely = 1_000_000, 654_321
    starts = (np.arange(count, dtype=np.int64) * 2 * 4096 + (1 << 40)).tolist()
    ends = [start + 4096 for start in starts]
    kinds: list[str | None] = ["guard"] * count
    kinds[lonely] = "zero-page"
    vmas = census(starts, ends, kinds)
    selection = vmas.select(Filter(states=("zero-page",)))
    (space,) = address_map.spaces(selection)
    axis = Axis(space.start, space.end)
    shares = columns(space, address_map._kinds(space, selection), axis)
    assert (shares[1] > 0).sum() in (1, 2)
    picture = address_map._strip(shares)
    red = np.isclose(picture, to_rgb(STATE_COLOURS["zero-page"])).all(axis=2)
    assert red.any()
    assert abs(red.any(axis=0).argmax() - lonely / count * PIXELS) <= 2


def test_picture_is_wide_enough_for_each_of_its_columns() -> None:
    vmas = Vmas.of_run(runs.find("specimens"))
    selection = vmas.select(Filter())
    figure = address_map.plot(selection, address_map.spaces(selection), mark=10)
    figure.set_dpi(120)  # as the views do
    figure.draw_without_rendering()
    widths = [ax.get_window_extent().width for ax in figure.axes if ax.images]
    assert widths and min(widths) >= PIXELS


def test_regions_account_for_every_vma() -> None:
    vmas = Vmas.of_run(runs.find("specimens"))
    selection = vmas.select(Filter(states=("zero-page",)))
    for space in address_map.spaces(selection):
        table = address_map.regions(space, selection)
        mine = vmas.frame[vmas.frame["tgid"] == space.tgid]
        assert table["vmas"].sum() == len(mine)
        assert table["mapped"].sum() == mine["bytes"].sum()
        assert table["selected"].sum() == (mine["class"] == "zero-page").sum()
        assert table["from"].iloc[0] == f"{mine['start'].min():x}"
        assert table["to"].iloc[-1] == f"{mine['end'].max():x}"


def test_a_range_of_addresses_is_drawn_alone() -> None:
    vmas = census([0, 1 << 30, 1 << 40], [4096, (1 << 30) + 4096, (1 << 40) + 4096])
    (space,) = address_map.spaces(vmas.select(Filter(within=(1 << 30, 1 << 31))))
    assert space.places.tolist() == [1]


def test_colours_are_told_apart_without_red_or_green() -> None:
    """Simulated after Viénot, Brettel and Mollon (1999), the states stay apart."""
    linear = np.array([to_rgb(STATE_COLOURS[state]) for state in STATES]) ** 2.2
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    for matrix in (protan, deutan):
        seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None, :], axis=2)
        np.fill_diagonal(apart, 1)
        assert apart.min() > 0.1, apart.round(2)
