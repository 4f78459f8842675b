# SPDX-License-Identifier: GPL-2.0-only
"""Profiles against programs whose shares are known, against perf report, and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import recordings

from anonvma.base.errors import ProfileError
from anonvma.perf import profile as perf_profile
from anonvma.perf.script import read
from anonvma.perf.stacks import Profile
from anonvma.run import runs

# Of nine quotas. What else a sample can be in, and the steps in which a quota is used up, are a few
# hundredths of it.
QUOTA, THREE = 100 / 9, 300 / 9
NEAR = 3.0  # percentage points


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recordings.known_program(tmp_path_factory.mktemp("known"))


@pytest.fixture(scope="module", params=["fp", "dwarf"])
def known(
    request: pytest.FixtureRequest, program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A recording of the known program, its callers found either way."""
    output = tmp_path_factory.mktemp("recorded") / "perf.data"
    how = ["--call-graph", request.param, "--sample-cpu", "-F", "997", "-e", "cpu-clock"]
    return recordings.record(output, *how, "--", program, recordings.QUOTA)


# ---- what is known by construction ----


GROW = "<alloc::vec::Vec<T> as known::Grow>::grow"


def test_functions_have_the_shares_they_were_given(known: Path) -> None:
    profile = recordings.read(known, inlines=True)
    assert len(profile.samples) > 200
    shares = perf_profile.children(profile)
    once = {
        "recurse": QUOTA,  # however deep it recurs
        "outermost": QUOTA,
        "middle": QUOTA,
        "innermost": QUOTA,
        recordings.method(shares.index): QUOTA,
        recordings.called(shares.index, GROW, "grow"): QUOTA,
        recordings.called(shares.index, "known::rusty", "rusty"): QUOTA,
        "one": QUOTA,
        "three": THREE,
        "main": 5 * QUOTA,
    }
    assert {name: shares[name] for name in once} == pytest.approx(once, abs=NEAR)


def test_inlined_functions_are_told_from_others(known: Path) -> None:
    frames = recordings.read(known, inlines=True).frames
    inlined = set(frames.loc[frames["inlined"], "symbol"])
    assert {"innermost", "middle"} <= inlined
    assert not {"outermost", "recurse", "main"} & inlined
    assert "middle" not in set(recordings.read(known).frames["symbol"])


def test_callers_of_an_inlined_chain_are_in_order(known: Path) -> None:
    paths = perf_profile.calltrace(recordings.read(known, inlines=True), levels=3)
    assert paths["innermost.middle.outermost"] == pytest.approx(QUOTA, abs=NEAR)


def test_threads_have_their_names_whole_and_their_shares(known: Path) -> None:
    samples = recordings.read(known).samples
    shares = 100 * samples.groupby("comm", observed=True)["period"].sum() / samples["period"].sum()
    expected = {"three": THREE, "one": QUOTA, recordings.ODD_NAME: 5 * QUOTA}
    assert {name: shares[name] for name in expected} == pytest.approx(expected, abs=NEAR)
    assert (samples[samples["comm"] != recordings.ODD_NAME]["tid"].nunique()) >= 2


def test_a_file_named_with_a_blank_and_a_newline_is_one_file(known: Path) -> None:
    frames = recordings.read(known).frames
    of_main = frames[frames["symbol"] == "main"]
    assert list(of_main["file"]) == [r"kn ow\nn"]


# ---- perf report on the same file ----

WAYS = {
    "clock, frame pointers": ["-g", "--sample-cpu", "-F", "997", "-e", "cpu-clock"],
    "clock, dwarf": ["--call-graph", "dwarf", "-F", "997", "-e", "cpu-clock"],
    "every page fault": ["-g", "-c", "1", "-e", "page-faults"],
    "no call graph": ["-F", "1999", "-e", "task-clock"],
}


@pytest.mark.parametrize("way", WAYS)
def test_totals_are_those_of_perf_report(way: str, program: Path, tmp_path: Path) -> None:
    recording = recordings.record(
        tmp_path / "perf.data", *WAYS[way], "--", program, recordings.QUOTA
    )
    profile = recordings.read(recording)
    ours = {"--no-children": perf_profile.self_(profile)}
    if profile.offsets[-1] > len(profile.offsets):
        ours["--children"] = perf_profile.children(profile)
    for words, shares in ours.items():
        # perf report shows the address of what has no symbol, and keeps the ends of copies' names.
        theirs: dict[str, float] = {}
        for symbol, (percent, *_) in recordings.report(recording, words, "-s", "sym").items():
            name = perf_profile.without_copies(symbol)
            if not name.startswith("0"):
                theirs[name] = theirs.get(name, 0.0) + percent
        assert len(theirs) > 5
        assert {name: shares[name] for name in theirs} == pytest.approx(theirs, abs=0.1)


def test_names_of_threads_are_those_of_perf_report(program: Path, tmp_path: Path) -> None:
    how = ["-g", "-F", "997", "-e", "cpu-clock"]
    recording = recordings.record(tmp_path / "perf.data", *how, "--", program, recordings.QUOTA)
    samples = recordings.read(recording).samples
    shares = 100 * samples.groupby("comm", observed=True)["period"].sum() / samples["period"].sum()
    theirs = recordings.report(recording, "--no-children", "-s", "comm")
    for name in ("one", "three"):
        assert shares[name] == pytest.approx(theirs[name][0], abs=0.1)


# ---- the rows, by hand ----

TEXT = b"""\
w 1/1 [000] 1.000000:  30 cycles:pp:\x20
\tffffffff81000001 spin.isra.0 ([kernel.kallsyms])
\tffffffff81000002 slow ([kernel.kallsyms])
\tffffffff81000003 lock ([kernel.kallsyms])
\t               4 recurse (/tmp/w)
\t               5 recurse (/tmp/w)
\t               6 recurse (/tmp/w)
\t               7 main (/tmp/w)

w 1/2 [001] 2.000000:  60 cycles:pp:\x20
\t               4 recurse (/tmp/w)
\t               7 main (/tmp/w)

w 1/2 [001] 3.000000:  10 cycles:pp:\x20
\tffffffff81000009 spin.part.12 ([kernel.kallsyms])
\t               7 main (/tmp/w)

"""


@pytest.fixture
def by_hand() -> Profile:
    return read([TEXT], theirs=True)


def test_self_and_children(by_hand: Profile) -> None:
    assert dict(perf_profile.self_(by_hand)) == pytest.approx({"recurse": 60, "spin": 40})
    assert dict(perf_profile.children(by_hand)) == pytest.approx(
        {"main": 100, "recurse": 90, "spin": 40, "slow": 30, "lock": 30}
    )


def test_call_paths_begin_at_each_function_and_have_five(by_hand: Profile) -> None:
    assert dict(perf_profile.calltrace(by_hand)) == pytest.approx(
        {
            "spin.slow.lock.recurse.recurse": 30,
            "slow.lock.recurse.recurse.recurse": 30,
            "lock.recurse.recurse.recurse.main": 30,
            "recurse.recurse.recurse.main": 30,  # where it is innermost
            "recurse.main": 60,
            "spin.main": 10,
            "main": 100,
        }
    )


def test_rows_have_the_names_that_the_robot_gives_them(by_hand: Profile) -> None:
    rows = perf_profile.rows(by_hand)
    assert rows["perf-profile.calltrace.cycles-pp.spin.main"] == pytest.approx(10)
    assert rows["perf-profile.children.cycles-pp.spin"] == pytest.approx(40)
    assert rows["perf-profile.self.cycles-pp.recurse"] == pytest.approx(60)


def test_rows_below_a_twentieth_of_a_percent_are_left_out() -> None:
    rare = b"w 1 4.0000000: 1 cycles:pp: \n\t 8 rare (/tmp/w)\n\n"
    assert not rare.startswith(b" ")
    profile = read([TEXT * 25 + rare], theirs=True)  # 1 in 2501: 0.04 %
    assert not [name for name in perf_profile.rows(profile).index if "rare" in name]
    assert "rare" in perf_profile.self_(profile)


def test_folded_stacks(by_hand: Profile) -> None:
    assert dict(perf_profile.folded(by_hand)) == {
        "w;main;recurse": 60,
        "w;main;recurse;recurse;recurse;lock;slow;spin.isra.0": 30,
        "w;main;spin.part.12": 10,
    }


def test_an_event_that_was_not_sampled_is_named(by_hand: Profile) -> None:
    with pytest.raises(ProfileError, match=r"no sample of 'page-faults': it has cycles:pp\.$"):
        perf_profile.self_(by_hand, "page-faults")


def stack(*names: str) -> bytes:
    lines = [b"\tffffffff81000001 %s ([kernel.kallsyms])" % name.encode() for name in names]
    return b"\n".join(
        [b"w 1/1 [000] 1.000000: 1 cycles: ", *lines, b"\t 7 main (/tmp/w)", b"", b""]
    )


HANDLER = ("do_user_addr_fault", "exc_page_fault", "asm_exc_page_fault")
MMAP = ("vm_mmap_pgoff", "ksys_mmap_pgoff", "do_syscall_64")


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (
            "page fault: waiting for mmap_lock",
            ("rwsem_down_read_slowpath", "down_read_killable", "lock_mm_and_find_vma", *HANDLER),
        ),
        ("page fault: taking mmap_lock", ("down_read", "lock_mm_and_find_vma", *HANDLER)),
        ("page fault: taking mmap_lock", ("up_read", *HANDLER)),
        ("page fault: finding and locking the VMA", ("mas_walk", "lock_vma_under_rcu", *HANDLER)),
        ("page fault: the rest", ("clear_page_erms", "__handle_mm_fault", *HANDLER)),
        (
            "mapping: waiting for mmap_lock",
            ("osq_lock", "rwsem_down_write_slowpath", "down_write_killable", *MMAP),
        ),
        ("mapping: the rest", ("mmap_region", *MMAP)),
        ("kernel: the rest", ("schedule", "do_syscall_64")),
        ("user mode", ()),
    ],
)
def test_each_stack_is_of_one_purpose(part: str, names: tuple[str, ...]) -> None:
    shares = perf_profile.parts(read([stack(*names)], theirs=True))
    assert shares[shares > 0].to_dict() == {part: pytest.approx(100)}
    assert list(shares.index) == list(perf_profile.PARTS)


# ---- runs ----


def test_metrics_of_a_recorded_run() -> None:
    run = runs.find("early-profile-1")
    found = perf_profile.metrics(run)
    assert found.dtypes.astype(str).to_dict() == {
        "repeat": "int64",
        "metric": "str",
        "value": "float64",
    }
    assert set(found["repeat"]) == {1, 2}
    # Every row is there in every repeat.
    assert (found.groupby("metric")["repeat"].nunique() == 2).all()
    assert not found.duplicated(["repeat", "metric"]).any()
    name = "perf-profile.children.cpu-clock.lock_mm_and_find_vma"
    shares = [perf_profile.children(each).get(name.rsplit(".", 1)[1], 0.0)
              for each in perf_profile.of_run(run).values()]  # fmt: skip
    assert list(found.loc[found["metric"] == name, "value"]) == pytest.approx(shares)
    assert perf_profile.metrics(runs.find("specimens")).empty


def test_the_fault_path_of_the_pair_leaves_the_rwsem() -> None:
    """What the mail's rows say, in the recorded boots."""
    early, delayed = (runs.find_all(f"{name}-profile-*") for name in ("early", "delayed"))
    assert len(early) == len(delayed) == 8
    taking = ["page fault: waiting for mmap_lock", "page fault: taking mmap_lock"]
    before = [perf_profile.mean(run, perf_profile.parts)["mean"][taking].sum() for run in early]
    after = [perf_profile.mean(run, perf_profile.parts)["mean"][taking].sum() for run in delayed]
    assert min(before) > 4 and max(after) < 1
    tables = perf_profile.tables({"delayed": delayed, "early": early}, most=20)
    rows = tables["children"].set_index("symbol")
    assert rows.loc["lock_mm_and_find_vma", "points"] < -3


def test_what_share_of_the_time_went_to_faults_on_bare_vmas() -> None:
    run = runs.find("early-profile-1")
    table = perf_profile.by_vma_class(run).set_index("before")
    in_faults = perf_profile.mean(run, perf_profile.parts)["mean"].filter(like="page fault").sum()
    assert table["of_time"].sum() == pytest.approx(in_faults)
    assert table["of_faults"].sum() == pytest.approx(100)
    assert table.loc["bare", "of_faults"] > 90
    assert set(table["basis"]) == {"time"} and set(table["n"]) == {2}
    # Here the tracer has no times.
    live = perf_profile.by_vma_class(runs.find("small-allocs-mt"))
    assert set(live["basis"]) == {"number"}


def test_profiles_survive_the_run_directory() -> None:
    run = runs.find("small-allocs-mt")
    for profile in perf_profile.of_run(run).values():
        again = Profile.of_tables(**profile.tables())
        pd.testing.assert_frame_equal(again.samples, profile.samples)
        np.testing.assert_array_equal(again.offsets, profile.offsets)
        np.testing.assert_array_equal(again.frame_ids, profile.frame_ids)
        assert int(profile.samples["stack"].max()) < len(profile.offsets) - 1


def test_nothing_of_the_machine_is_in_recorded_profiles() -> None:
    for run in runs.find_all("*profile-*"):
        frames = run.table("frames")
        files = {str(file) for file in frames["file"].dropna()}
        assert not any("/" in file for file in files)
        comms = set(run.table("samples")["comm"].dropna())
        assert comms <= {"vmload", "perf-exec", "setpriv", "swapper"}
