# SPDX-License-Identifier: GPL-2.0-only
"""The kernel test robot's table: against what its own program prints, and by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anonvma.compare import conditions, lkp, reference

HERE = Path(__file__).parent


def _robot_rows() -> list[tuple[str, list[float], list[float | None], str]]:
    """Figures and the line that lkp-tests' own functions, run by Ruby, printed for them."""
    lines = (HERE / "lkp_rows.txt").read_text().splitlines()
    rows = []
    for about, printed in zip(lines[::2], lines[1::2], strict=True):
        name, means, deviations = about.split("\t")
        sds = [None if sd == "-1" else float(sd) for sd in deviations.split()]
        rows.append((name, [float(mean) for mean in means.split()], sds, printed))
    return rows


def test_rows_are_byte_for_byte_what_the_robots_program_prints() -> None:
    """Two and three columns; zeros, negatives, huge changes, single runs, shares."""
    rows = _robot_rows()
    assert len(rows) == 400 and len({len(means) for _, means, _, _ in rows}) == 2
    for name, means, sds, printed in rows:
        assert lkp.row(name, means, sds) == printed


ABOUT = lkp.Header(
    {
        "compiler": "gcc-12",
        "nr_task": "8",
        "test": "small-allocs-mt",
        "testcase": "vm-scalability",
    },
    [
        ("0123456789abcdef0123456789abcdef01234567", "mm: a base"),
        ("89abcdef0123456789abcdef0123456789abcdef", "mm: a head"),
    ],
)
TOP = """\
=========================================================================================
compiler/nr_task/test/testcase:
  gcc-12/8/small-allocs-mt/vm-scalability

commit:@
  0123456789 ("mm: a base")
  89abcdef01 ("mm: a head")

0123456789abcdef 89abcdef0123456789abcdef012@
---------------- ---------------------------@
         %stddev     %change         %stddev
             \\          |                \\@@
""".replace("@", " ")
CALLTRACE = "perf-profile.calltrace.cycles-pp.exc_page_fault.asm_exc_page_fault.do_access"


def test_whole_table_byte_for_byte() -> None:
    means = {
        "perf-stat.overall.cycles-between-cache-misses": (4100, 27880),
        CALLTRACE: (70.25, 0.5),
        "vm-scalability.workload": (7.123e8, 1.5e9),
        "vm-scalability.time.voluntary_context_switches": (712.4, 101.9),
    }
    sds = {
        "perf-stat.overall.cycles-between-cache-misses": (100, 20),
        CALLTRACE: (0, 0.207),
        "vm-scalability.workload": (0, 4.6e7),
        "vm-scalability.time.voluntary_context_switches": (36, 0),
    }
    name = "vm-scalability.time.voluntary_context_switches"
    wanted = TOP + "\n".join(
        [
            f"    712.40 ±  5%     -85.7%     101.90        {name}",
            " 7.123e+08          +110.6%    1.5e+09 ±  3%  vm-scalability.workload",
            f"     70.25           -69.8        0.50 ± 41%  {CALLTRACE}",
            "      4100 ±  2%    +580.0%      27880        "
            "perf-stat.overall.cycles-between-cache-misses",
            "",
            "",
        ]
    )
    assert lkp.table(ABOUT, means, sds) == wanted


@pytest.mark.parametrize(
    ("mean", "printed"),
    [
        (0, "      0.00"), (999.994, "    999.99"), (999.996, "   1000.00"), (1000, "      1000"),
        (1000.99, "      1000"), (1e8, " 100000000"), (1.0001e8, "     1e+08"),
        (1.105e8, " 1.105e+08"), (-12.345, "    -12.35"), (-4000.9, "     -4000"),
    ],
)  # fmt: skip
def test_values(mean: float, printed: str) -> None:
    assert lkp.value(mean) == printed


@pytest.mark.parametrize(
    ("mean", "sd", "printed"),
    [
        (100, 2.0, "      "), (100, 2.01, " ±  2%"), (100, 2.999, " ±  2%"), (100, 41, " ± 41%"),
        (1, 12.34, " ±1234%"), (0, 5, " ±  5%"), (0, 1, "      "), (100, None, "      "),
        (-100, 50, "      "),
    ],
)  # fmt: skip
def test_errors(mean: float, sd: float | None, printed: str) -> None:
    assert lkp.error(mean, sd) == printed


@pytest.mark.parametrize(
    ("base", "mean", "absolute", "printed"),
    [
        (100, 110, False, "     +10.0% "), (100, 110, True, "     +10.0  "),
        (663.67, 50783.9, False, "   +7552.0% "), (0, 0, False, "    -100.0% "),
        (0, 3, False, "   +3e+102% "), (1, 1001.5, False, "    +1e+05% "),
        (72.57, 0, True, "     -72.6  "), (0, 98.15, True, "     +98.2  "),
    ],
)  # fmt: skip
def test_changes(base: float, mean: float, absolute: bool, printed: str) -> None:
    assert lkp.change(base, mean, absolute) == printed


# What the blanks of these rows were before an archive collapsed them follows from the rules.
MAIL = """\
4366 ± 2% +565.6% 29061 perf-stat.overall.cycles-between-cache-misses
72.57 -72.6 0.00 perf-profile.calltrace.cycles-pp.exc_page_fault.asm_exc_page_fault.do_access
73.28 -72.6 0.70 perf-profile.calltrace.cycles-pp.asm_exc_page_fault.do_access
72.55 -72.5 0.00 perf-profile.calltrace.cycles-pp.do_user_addr_fault.exc_page_fault.asm_exc_page_fault.do_access
69.93 -69.9 0.00 perf-profile.calltrace.cycles-pp.lock_mm_and_find_vma.do_user_addr_fault.exc_page_fault.asm_exc_page_fault.do_access
69.12 -69.1 0.00 perf-profile.calltrace.cycles-pp.down_read_killable.lock_mm_and_find_vma.do_user_addr_fault.exc_page_fault.asm_exc_page_fault
68.78 -68.8 0.00 perf-profile.calltrace.cycles-pp.rwsem_down_read_slowpath.down_read_killable.lock_mm_and_find_vma.do_user_addr_fault.exc_page_fault
65.78 -65.8 0.00 perf-profile.calltrace.cycles-pp._raw_spin_lock_irq.rwsem_down_read_slowpath.down_read_killable.lock_mm_and_find_vma.do_user_addr_fault
65.43 -65.4 0.00 perf-profile.calltrace.cycles-pp.native_queued_spin_lock_slowpath._raw_spin_lock_irq.rwsem_down_read_slowpath.down_read_killable.lock_mm_and_find_vma
11.22 +86.5 97.68 perf-profile.calltrace.cycles-pp.down_write_killable.vm_mmap_pgoff.ksys_mmap_pgoff.do_syscall_64.entry_SYSCALL_64_after_hwframe
11.14 +86.5 97.66 perf-profile.calltrace.cycles-pp.rwsem_down_write_slowpath.down_write_killable.vm_mmap_pgoff.ksys_mmap_pgoff.do_syscall_64
3.17 ± 2% +94.0 97.12 perf-profile.calltrace.cycles-pp.osq_lock.rwsem_optimistic_spin.rwsem_down_write_slowpath.down_write_killable.vm_mmap_pgoff
3.45 ± 2% +94.1 97.59 perf-profile.calltrace.cycles-pp.rwsem_optimistic_spin.rwsem_down_write_slowpath.down_write_killable.vm_mmap_pgoff.ksys_mmap_pgoff
0.00 +98.2 98.15 perf-profile.calltrace.cycles-pp.vm_mmap_pgoff.ksys_mmap_pgoff.do_syscall_64.entry_SYSCALL_64_after_hwframe
0.00 +98.2 98.16 perf-profile.calltrace.cycles-pp.ksys_mmap_pgoff.do_syscall_64.entry_SYSCALL_64_after_hwframe
703147 -87.6% 87147 ± 2% perf-stat.ps.context-switches
663.67 ± 5% +7551.9% 50783 vm-scalability.time.involuntary_context_switches
1.105e+08 -86.7% 14697764 ± 2% vm-scalability.time.voluntary_context_switches
"""  # noqa: E501


def test_rows_of_the_mail_come_from_figures_that_give_them() -> None:
    """The figures as quoted, and in one row with the digits that its change needs."""
    digits = {"vm-scalability.time.involuntary_context_switches": 0.5}
    table = reference.mail()
    rows = table[table["base"].notna()].to_dict(orient="records")
    lines = MAIL.splitlines()
    assert len(rows) == len(lines) == 18
    for row, line in zip(rows, lines, strict=True):
        head = row["head"] + digits.get(row["metric"], 0)
        pairs = ((row["base"], row["base_sd_percent"]), (head, row["head_sd_percent"]))
        sds = [0.0 if np.isnan(share) else mean * (share + 0.4) / 100 for mean, share in pairs]
        printed = lkp.row(row["metric"], [row["base"], head], sds)
        assert re.sub(" +", " ", printed).strip() == line
        assert printed[46:] == row["metric"] and len(printed) == 46 + len(row["metric"])
        assert row["change"] in line


def test_order_is_the_tests_own_rows_then_the_smaller_groups() -> None:
    names = ["b.two", "b.one", "a.z", "c.x", "c.y", "c.z", "vm-scalability.q", "vm-scalability.p"]
    changes = {name: [0.0] for name in names}
    assert lkp.in_order(names, changes) == [
        "vm-scalability.p", "vm-scalability.q", "a.z", "b.one", "b.two", "c.x", "c.y", "c.z",
    ]  # fmt: skip
    profile = ["perf-profile.children.cycles-pp.a", "perf-profile.children.cycles-pp.b"]
    assert lkp.in_order(profile, {profile[0]: [5.0], profile[1]: [-5.0]}) == profile[::-1]


def test_three_columns_and_what_one_lacks() -> None:
    values = pd.DataFrame(
        {
            "vm-scalability.throughput": [100.0, 110.0, 200.0, 200.0, 50.0],
            "x.y%": [1, 1, 2, 2, None],
        }
    )
    about = lkp.Header({"test": "t"}, [("a" * 40, ""), ("b" * 40, "two"), ("v6.12", "")])
    text = lkp.of_matrix(about, values, ["one", "one", "two", "two", "three"])
    lines = text.splitlines()
    assert lines[4:8] == ["commit: ", "  aaaaaaaaaa", '  bbbbbbbbbb ("two")', "  v6.12"]
    assert lines[9] == f"{'a' * 16} {'b' * 27} {'v6.12':>27} "
    assert lines[10] == f"{'-' * 16} {'-' * 27} {'-' * 27} "
    assert lines[11] == "         %stddev     %change         %stddev     %change         %stddev"
    # The population's deviation of 100 and 110 is 5, of a mean of 105.
    assert lines[13] == (
        "    105.00 ±  4%     +90.5%     200.00           -52.4%      50.00        "
        "vm-scalability.throughput"
    )
    assert lines[14] == (
        "      1.00            +1.0        2.00            -1.0        0.00        x.y%"
    )


def of_two(columns: dict[str, list[float | None]], n: int) -> list[str]:
    values = pd.DataFrame(columns, dtype="float64")
    labels = ["base"] * n + ["head"] * (len(values) - n)
    about = lkp.Header({"test": "t"}, [("a" * 40, ""), ("b" * 40, "")])
    return lkp.of_matrix(about, values, labels).splitlines()[9:]


def test_a_run_that_lacks_a_row_has_0_in_it() -> None:
    row = of_two({"perf-profile.self.cycles-pp.f": [6.0, *[None] * 5, *[6.0] * 6]}, 6)[-2]
    assert row == "      1.00 ±223%      +5.0        6.00        perf-profile.self.cycles-pp.f"
    row = of_two({"x.y": [None, 4.0, 3.0, 3.0]}, 2)[-2]
    assert row == "      2.00 ±100%     +50.0%       3.00        x.y"
    row = of_two({"x.y": [None, None, 3.0, 3.0]}, 2)[-2]
    assert row == "      0.00         +3e+102%       3.00        x.y"


def test_failures_stand_ahead_of_the_rest() -> None:
    blocked = "dmesg.INFO:task_blocked_for_more_than#seconds"
    columns: dict[str, list[float | None]] = {
        "x.y": [1.0] * 12,
        blocked: [*[1.0] * 5, 0.0, *[None] * 6],
        "perf-sanity-tests.perf_all_PMU_test.fail": [*[None] * 6, *[1.0] * 6],
    }
    # The two rows of failures as two of the robot's mails have them, but for their names' order.
    assert of_two(columns, 6) == [
        "---------------- --------------------------- ",
        "       fail:runs  %reproduction    fail:runs",
        "           |             |             |    ",
        f"          5:6          -83%            :6     {blocked}",
        "           :6          100%           6:6     perf-sanity-tests.perf_all_PMU_test.fail",
        "         %stddev     %change         %stddev",
        "             \\          |                \\  ",
        "      1.00            +0.0%       1.00        x.y",
        "",
    ]
    alone = of_two({"x.fail": [1.0, None, 1.0]}, 1)
    assert alone[3:] == ["          1:1          -50%           1:2     x.fail", ""]


def test_hostile_names_stay_on_their_line() -> None:
    about = lkp.Header({"a\nb": "x\x1b[31m"}, [("0" * 40, "new\nline"), ("1" * 40, "")])
    text = lkp.table(about, {"evil\n\x1b]0;name": (1.0, 2.0)}, {"evil\n\x1b]0;name": (0.0, 0.0)})
    assert "\x1b" not in text and len(text.splitlines()) == 15


def test_of_runs_has_the_recorded_pair() -> None:
    found = conditions.find(["early=early-small-allocs-mt-*", "delayed=delayed-small-allocs-mt-*"])
    text = lkp.of_runs(found)
    assert "x86_64/8/268435456/small-allocs-mt/vm-scalability" in text
    row = r"^     6555\d +-100.0% +\d+.\d\d .*mmap-lock.acquired.page-fault.read$"
    assert re.search(row, text, re.M)
