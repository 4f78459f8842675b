# SPDX-License-Identifier: GPL-2.0-only
"""What starting costs, without a clock: which packages are imported, and which are not yet."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from waiting import PATIENCE

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "analysis" / "anonvma"

# What takes longer to import than a table takes to make.
SLOW = ("IPython", "duckdb", "ipywidgets", "matplotlib", "nbformat", "papermill", "scipy.stats")
SLOW += ("seaborn", "snakemake")

# What these are for cannot be done without.
NEED = {
    ("explore.controls", "explore.explorer", "explore.panel"): {"IPython", "ipywidgets"},
    (
        "report.engine",
        "report.notebooks",
        "report.html_page",
        "report.publish",
        "study.conclusion",
        "study.engine",
    ): {
        "nbformat",
        "papermill",
    },
    ("study.dataset", "study.store", "study.trend"): {"duckdb"},
    ("base.drawing",): {"IPython", "ipywidgets", "matplotlib", "seaborn"},
}


def imported(program: str, *words: str) -> set[str]:
    """Return which of the slow packages a program of Python has imported when it is done."""
    told = f"import json, sys\nprint(json.dumps([m for m in {SLOW!r} if m in sys.modules]))"
    argv = [sys.executable, "-c", f"{program}\n{told}", *words]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def statements(modules: Iterable[str]) -> str:
    """Return a program that imports these modules of ours."""
    return "\n".join(f"import anonvma.{module}" for module in modules)


def command(*words: str) -> str:
    """Return a program that runs one command of anonvma, whatever its exit code."""
    return (
        "from anonvma.cli import main\n"
        f"try: main({list(words)!r})\n"
        "except SystemExit as ended: assert ended.code in (0, 1, 2), ended.code"
    )


def test_a_notebook_that_imports_every_table_imports_nothing_that_draws() -> None:
    but = {name for names in NEED for name in names}
    modules = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("[a-z]*.py"))
    names = sorted(".".join(path.with_suffix("").parts) for path in modules)
    assert imported(statements(name for name in names if name not in but)) == set()


@pytest.mark.parametrize("names", NEED, ids="+".join)
def test_what_needs_a_slow_package_imports_no_other(names: tuple[str, ...]) -> None:
    assert imported(statements(names)) <= NEED[names]


def test_a_density_estimate_has_scipy_stats_when_it_is_drawn() -> None:
    program = (
        "from anonvma.base.drawing import sns\n"
        "lines = sns.kdeplot(x=[1.0, 2, 4], cumulative=True).lines\n"
        "assert lines[0].get_ydata()[-1] > 0.9"
    )
    assert "scipy.stats" in imported(program)


def test_help_and_usage_import_not_even_pandas() -> None:
    usage = (("--help",), ("census", "--help"), ("sensus",), ("census", "--pid", "no"))
    lean = "import sys\nassert 'pandas' not in sys.modules and 'pyarrow' not in sys.modules"
    assert imported("\n".join([*(command(*words) for words in usage), lean])) == set()


MISTYPED = (
    ("publish", "latst"),
    ("publish", "small-allocs-mt", "spcimens"),
    ("publish", "small-allocs-mt", "--specimens", "spcimens"),
    ("publish", "small-allocs-mt", "--to", "nobody"),
    ("publish", "small-allocs-mt", "--from", "x"),
    ("publish", "small-allocs-mt", "--subject", "a\nBcc: x"),
    ("publish", "small-allocs-mt", "--output", "README.md"),
    ("publish", "small-allocs-mt", "--output", "/proc/nowhere"),
    ("publish", "small-allocs-mt", "--send", "--from", "a@example.org"),
    ("publish", "small-allocs-mt", "--reply-to", "/dev/null"),
    ("publish", "early-small-*..late-*"),
    ("publish", "early-small-*..delayed-anon-*"),
    ("profile", "latst"),
    ("profile", "specimens"),  # which was not sampled
    ("profile", "delayed-profile-1", "--base", "early-profil-1"),
    ("demo", "--run", "smal-allocs-mt"),
    ("record", "latst", "x"),
    ("compare", "early-smal-*", "delayed-small-*"),
    ("scaling", "scaling-eraly-*"),
    ("report", "--workload", "smal-allocs-mt"),
    ("report", "--bytes", "12q"),
    ("report", "--workload", "pid:4000000"),
    ("census", "--target", "gest:x"),
    ("faults", "--target", "guest:nowhere", "--", "true"),
    ("faults", "--", "nosuchprogram"),
    ("locks", "--", "nosuchprogram"),
    ("lab", "small-allocs-mt"),
)


@pytest.mark.usefixtures("build")
def test_what_is_mistyped_is_told_before_anything_slow_is_imported() -> None:
    """Imports are what a wrong word used to wait for; a kernel that starts would be one more."""
    program = (
        "import sys\n"
        "from anonvma.cli import main\n"
        f"for words in {MISTYPED!r}:\n"
        "    try: main(list(words))\n"
        "    except SystemExit as ended: assert ended.code in (1, 2, 127), (words, ended.code)\n"
        "    slow = {'pandas', 'pyarrow', 'papermill'} & set(sys.modules)\n"
        "    assert not slow, (words, slow)"
    )
    assert imported(program) == set()


def test_what_executes_notebooks_builds_no_grammar() -> None:
    code = "import sys; from anonvma.report import notebooks; print('lark' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"False\n"


def test_text_of_recorded_runs_imports_nothing_that_draws() -> None:
    commands = [
        command("compare", "early-small-allocs-mt-[1-5]", "delayed-small-allocs-mt-[1-5]"),
        command("profile", "delayed-profile-1"),
        command("runs", "--in", "data/recorded"),
    ]
    assert imported("\n".join(commands)) <= {"duckdb"}
