# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures shared by all tests, and what the whole run does with them.

Tests run side by side (WORKERS of make), each module on one worker, and on a machine that is busy
otherwise: none measures what others would disturb.
`@pytest.mark.xdist_group("name")` has tests of several modules take turns, such as those that raise
a sysctl and those that look whether it was put back.

A test that this machine cannot run skips with its exact reason, and the run ends with how many did,
by reason. ANONVMA_SKIPS names a file of the reasons (regular expressions) that are accepted; any
other skip then fails, so that a machine that should run everything proves it.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import guests
import hypothesis
import matplotlib
import pytest

from anonvma.target.guest import Guest

matplotlib.use("Agg")
# Whoever first looks for a font in a home lists them all, and says so where that takes long: here,
# not in the first notebook that draws, which would then print more than it should.
importlib.import_module("matplotlib.font_manager")
# No test asserts time: hypothesis would, 200 ms for each example.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")

ROOT = Path(__file__).resolve().parent.parent
# What takes long: about how many seconds on a machine of two CPUs, and why. `make check` leaves it
# out; elsewhere it comes first, in the order of its groups' seconds.
SLOW = {
    "test_runner.py": (
        110,
        "studies to their end: Snakemake, and a notebook per job, each starts Python",
    ),
    "test_bench.py": (20, "the bench's own rounds, with 70,000 VMAs"),
    "test_bench_compare.py": (2, "the bench's own rounds"),
    "test_bench_explore.py": (10, "the bench's own rounds"),
    "test_bench_faults.py": (12, "the bench's own rounds, with a million faults"),
    "test_bench_perf.py": (2, "the bench's own rounds"),
    "test_bench_ssh.py": (2, "the bench's own rounds, on a host"),
    "test_bench_start.py": (6, "the bench's own rounds"),
    "test_bench_store.py": (4, "the bench's own rounds"),
    "test_btf.py": (42, "every member that a program relies on, taken away in turn"),
    "test_attribution.py": (65, "runs of both conditions, collected"),
    "test_claims.py": (19, "whole notebooks, executed"),
    "test_cli.py": (45, "every command in a Python of its own"),
    "test_collection.py": (80, "runs, collected; each of them killed at several moments"),
    "test_changes.py": (45, "a notebook of the user's own runs, and an experiment here"),
    "test_cost.py": (35, "what observing costs, measured here"),
    "test_experiment.py": (1, "several runs per condition"),
    "test_explorer.py": (22, "widgets over whole runs, each with its figures"),
    "test_explore_browser.py": (75, "JupyterLab and Chromium"),
    "test_faults_program.py": (
        60,
        "kprobes are attached to each of many kernel functions, per test",
    ),
    "test_fetch_deb.py": (19, "an archive of Debian packages of its own, served"),
    "test_flame.py": (8, "Chromium"),
    "test_foreign_run.py": (17, "two hundred planted secrets, in runs that are written anew"),
    "test_fuzz_runs.py": (14, "runs that are damaged, each through every command"),
    "test_guest.py": (250, "guests boot under emulation"),
    "test_importing.py": (16, "perf reads recordings, each with symbols"),
    "test_killed.py": (30, "make report, killed at several stages"),
    "test_lab.py": (2, "JupyterLab, as root and as others"),
    "test_live.py": (13, "censuses of the whole machine, and what they trace"),
    "test_locks_program.py": (
        9,
        "kprobes are attached to each of many kernel functions, per test",
    ),
    "test_notebooks.py": (5, "whole notebooks, executed"),
    "test_pair.py": (1, "guests boot under emulation"),
    "test_deduplicated.py": (18, "perf reads recordings, each with symbols"),
    "test_recording.py": (3, "perf reads recordings, each with symbols"),
    "test_profile.py": (14, "perf reads recordings, each with symbols"),
    "test_program.py": (25, "Redis is fetched, and runs under every tracer"),
    "test_publish.py": (65, "reports are rendered, shown by Chromium, and mailed"),
    "test_redaction.py": (28, "every recorded run, and two hundred planted secrets"),
    "test_regime.py": (8, "faults are traced to see what the kernel does"),
    "test_reproduction.py": (85, "runs, collected again from a clone"),
    "test_scaling.py": (8, "laws fitted to hundreds of samples drawn anew"),
    "test_ssh.py": (35, "hosts boot, and lose their connections"),
    "test_ssh_collect.py": (35, "runs over ssh, and notebooks"),
    "test_ssh_network.py": (60, "hosts boot, and lose their connections"),
    "test_start.py": (10, "every command in a Python of its own"),
    "test_statistics.py": (17, "fourteen thousand comparisons of like with like"),
    "test_store.py": (20, "thousands of runs in a store, and commands over them"),
    "test_stress.py": (8, "kprobes are attached to each of many kernel functions, per test"),
    "test_time_program.py": (9, "kprobes are attached to each of many kernel functions, per test"),
    "test_tracing_ends.py": (35, "kprobes are attached to each of many kernel functions, per test"),
}
NOTEBOOK = 7  # seconds of one
SLOW_TEST = 10  # of one that is marked in a module that is not
FAILURES = ROOT / "build" / "failures"


def pytest_configure() -> None:
    # A shell without job control has what it starts in the background ignore these, which every
    # process below would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
        if item.path.name in SLOW or item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.slow)
    # The long groups first, so that none is left for the end, when the other workers are done.
    seconds = seconds_by_group(items)
    items.sort(key=lambda item: -seconds[group(item)])


def group(item: pytest.Item) -> str:
    """Of those tests that one worker runs."""
    marker = item.get_closest_marker("xdist_group")
    assert marker
    return str(marker.args[0])


def seconds_by_group(items: list[pytest.Item]) -> collections.Counter[str]:
    """About how long each group takes: of each module as much as it has of its tests."""
    tests = collections.Counter(item.path.name for item in items)
    found: collections.Counter[str] = collections.Counter()
    for item in items:
        name = item.path.name
        if name in SLOW:
            found[group(item)] += SLOW[name][0] / tests[name]
        elif item.path.suffix == ".ipynb":
            found[group(item)] += NOTEBOOK / tests[name]
        elif item.get_closest_marker("slow"):
            found[group(item)] += SLOW_TEST
    return found


def pytest_collection_finish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput") and any("@" not in i.nodeid for i in session.items):
        pytest.exit(
            "pytest-xdist takes no notice of groups: use the versions of constraints.txt", 3
        )


# ---- what became of it ----


def reason(report: pytest.TestReport) -> str:
    """Why it was skipped, on one line."""
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return " ".join(why.removeprefix("Skipped: ").split())


def accepted(why: str) -> bool:
    """Whether the list of accepted skips, if there is one, has this reason."""
    name = os.environ.get("ANONVMA_SKIPS")
    if name is None:
        return True
    lines = Path(name).read_text().splitlines()
    return any(re.fullmatch(line, why) for line in lines if line and not line.startswith("#"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and not accepted(reason(report)):
        report.outcome = "failed"
        report.longrepr = (
            f"skipped, and {os.environ['ANONVMA_SKIPS']} does not accept it: {reason(report)}"
        )
    if report.failed:
        keep(item, report)
    return report


def keep(item: pytest.Item, report: pytest.TestReport) -> None:
    """Keep all that a failed test said, and the small files that it made, such as logs."""
    name = re.sub(r"[^\w.-]+", "-", item.nodeid.removeprefix("tests/"))[:150].strip("-")
    directory = FAILURES / name
    directory.mkdir(parents=True, exist_ok=True)
    sections = [f"---- {title}\n{content}" for title, content in report.sections]
    (directory / f"{report.when}.txt").write_text(
        "\n".join([report.longreprtext, *sections]), errors="replace"
    )
    made = getattr(item, "funcargs", {}).get("tmp_path")
    for path in made.rglob("*") if isinstance(made, Path) else ():
        with contextlib.suppress(OSError):  # it went meanwhile, or is not to be read
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
                kept = directory / "files" / path.relative_to(made)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, kept)


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        shutil.rmtree(FAILURES, ignore_errors=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any) -> Any:
    yield  # to pytest's own summary; what follows is the last before its closing line
    skips = collections.Counter(
        reason(report) for report in terminalreporter.stats.get("skipped", [])
    )
    if skips:
        terminalreporter.section("not tested here, by reason")
    for why, count in skips.most_common():
        terminalreporter.line(f"{count:4} {why}")
    if any(terminalreporter.stats.get(kind) for kind in ("failed", "error")):
        terminalreporter.section(f"output and logs of what failed: {FAILURES.relative_to(ROOT)}/")


@pytest.fixture(scope="session", autouse=True)
def _somebody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Mail has a sender where git was told who the user is, and not every machine's git was."""
    configuration = tmp_path_factory.mktemp("git") / "config"
    configuration.write_text("[user]\n\tname = A Developer\n\temail = a@example.org\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
        yield


@pytest.fixture(scope="session")
def build() -> Path:
    """The directory with vmaprobe, vmload and specimens."""
    directory = Path(os.environ.get("ANONVMA_BUILD", ROOT / "build"))
    missing = [n for n in ("vmaprobe", "vmload", "specimens") if not (directory / n).exists()]
    if missing:
        pytest.fail(f"{', '.join(missing)} not built in {directory}: run `make build`")
    return directory


@pytest.fixture(scope="session")
def new() -> Iterator[Guest]:
    """A guest of Debian's 6.12, whose virtio drivers are built in; left as it is by its tests.

    Whoever uses it is of the group "guests", so that one worker boots it once. Its slab caches of
    anon_vma have their own lines in /proc/slabinfo, which count objects, not a CPU's own slabs.
    """
    exact = "slab_nomerge slab_debug=F,anon_vma,anon_vma_chain"
    with Guest(guests.stock("6.12"), accel="tcg", append=exact) as booted:
        yield booted


@pytest.fixture(scope="session")
def old() -> Iterator[Guest]:
    """Likewise of 6.1, whose virtio drivers are modules, and which has no per-VMA locks."""
    with Guest(guests.stock("6.1"), accel="tcg") as booted:
        yield booted


@pytest.fixture(scope="session")
def odd_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """odd_process.c, compiled."""
    program = tmp_path_factory.mktemp("odd") / "odd_process"
    source = Path(__file__).parent / "helpers" / "odd_process.c"
    subprocess.run(
        ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program, source], check=True
    )
    return program


@pytest.fixture(scope="session")
def vma_locks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vma_locks.c, compiled so that it runs in a guest, too."""
    program = tmp_path_factory.mktemp("vma") / "vma_locks"
    source = Path(__file__).parent / "helpers" / "vma_locks.c"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]
    subprocess.run(["gcc", *flags, "-o", program, source], check=True)
    return program


@pytest.fixture(scope="session")
def odd_faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """odd_faults.c, compiled so that it runs in a guest, too, with two files of its own."""
    program = tmp_path_factory.mktemp("odd") / "odd_faults"
    source = Path(__file__).parent / "helpers" / "odd_faults.c"
    words = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]
    subprocess.run([*words, "-o", program, source], check=True)
    for name in ("one", "two"):
        (program.parent / name).write_bytes(
            random.Random(name).randbytes(8 * os.sysconf("SC_PAGE_SIZE"))
        )
    return program


@pytest.fixture
def odd_process(odd_program: Path) -> Iterator[Callable[..., list[int]]]:
    """Start an odd process of some kind; the pids it printed, the last one its own."""
    started: list[subprocess.Popen[str]] = []

    def start(kind: str, *arguments: str | bytes | Path, pids: int = 1) -> list[int]:
        process = subprocess.Popen(
            [odd_program, kind, *arguments], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout
        return [int(process.stdout.readline()) for _ in range(pids)]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
