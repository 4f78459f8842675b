# SPDX-License-Identifier: GPL-2.0-only
"""Tables as text: one format a column, names of processes as ps writes them, 80 columns."""

from __future__ import annotations

import os
import re

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from anonvma.base import tabular
from anonvma.cli import main


def test_a_count_is_a_count_beside_a_large_one() -> None:
    table = pd.DataFrame({"what": ["a", "b", "c"], "faults": [9.0, 16385.0, 25.0]})
    assert list(tabular.in_columns(table)["faults"]) == ["9", "16,385", "25"]


def test_means_of_a_column_have_the_same_decimals() -> None:
    table = pd.DataFrame({"what": ["a", "b", "c"], "mean": [9.0, 17.25, 1234.5]})
    shown = list(tabular.in_columns(table)["mean"])
    assert {len(text.partition(".")[2]) for text in shown} == {1}


def test_rows_of_unlike_things_have_digits_of_their_own() -> None:
    table = pd.DataFrame({"figure": ["page faults", "share"], "mean": [20485.0, 0.0312]})
    assert list(tabular.in_columns(table)["mean"]) == ["20,485", "0.0312"]


def test_processes_are_named_as_ps_names_them() -> None:
    table = pd.DataFrame({"tgid": np.array([24285, 7], np.uint32), "vmas": [24285, 7]})
    shown = tabular.in_columns(table)
    assert list(shown["tgid"]) == ["24285", "7"] and list(shown["vmas"]) == ["24,285", "7"]


@given(
    st.lists(st.floats(0.001, 1e9), min_size=1),
    st.lists(st.text(max_size=90), min_size=1),
    st.integers(60, 200),
)
def test_whatever_is_in_it_a_table_of_text_fits_and_its_columns_are_alike(
    numbers: list[float], words: list[str], width: int
) -> None:
    rows = min(len(numbers), len(words))
    table = pd.DataFrame({"name": words[:rows], "mean": numbers[:rows], "path": words[:rows]})
    assert all(len(line) <= width for line in tabular.lines(table, width))
    decimals = {len(text.partition(".")[2]) for text in tabular.in_columns(table)["mean"]}
    assert len(decimals) == 1


def test_columns_that_can_be_missed_go_before_a_name_is_cut() -> None:
    table = pd.DataFrame({"run": ["n" * 40], "bytes": ["b" * 20], "kernel": ["k" * 30]})
    (head, row) = tabular.lines(table, 80, optional=("bytes",))
    assert head.split() == ["run", "kernel"] and "n" * 40 in row and "k" * 30 in row


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "--in", "data/recorded"],
        ["profile", "small-allocs-mt"],
        ["profile", "delayed-profile-1", "--base", "early-profile-1"],
        ["compare", "early-small-allocs-mt-[1-5]", "delayed-small-allocs-mt-[1-5]"],
        ["census"],
        ["faults", "--", "true"],
    ],
    ids=lambda words: words[0],
)
def test_a_terminal_of_80_columns_is_enough(
    words: list[str], monkeypatch: pytest.MonkeyPatch, build: object, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.setattr(tabular, "terminal_width", lambda: 80)
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    long = [line for line in done.stdout.splitlines() if len(line) > 80]
    assert not long


def test_the_census_marks_its_own_processes(build: object) -> None:
    done = CliRunner().invoke(main, ["census", "--most", "10000"])
    assert re.search(rf"^ *{os.getpid()}  \S.* \*  ", done.stdout, re.M), done.stdout
    assert "of the VMAs are of this command itself" in done.stdout


def test_what_is_piped_on_has_plain_numbers(request: pytest.FixtureRequest) -> None:
    recorded = str(request.config.rootpath / "data" / "recorded")
    words = ["query", "--in", recorded, "select 1234567 as n, 1.5 as x, 'a,b' as s"]
    for option, shown in (("--csv", 'n,x,s\n1234567,1.5,"a,b"\n'), ("--tsv", "n\tx\ts\n")):
        done = CliRunner().invoke(main, [*words, option])
        assert done.exit_code == 0 and done.stdout.startswith(shown)
    assert CliRunner().invoke(main, [*words, "--csv", "--json"]).exit_code == 2
