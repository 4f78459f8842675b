# SPDX-License-Identifier: GPL-2.0-only
"""What a command is given or may write to can be anything; it ends in one sentence, and soon."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner

from anonvma.base import bounded, paths, scratch
from anonvma.base.errors import NotebookError, StoreError, TargetError
from anonvma.cli import main
from anonvma.report import notebooks
from anonvma.study import job
from anonvma.study.store import Store
from anonvma.target.kernel_image import open_image

RECORDED = Path(__file__).resolve().parents[2] / "data" / "recorded"


def said_by(words: list[str | bytes], **more: object) -> tuple[int, str]:
    argv = [sys.executable, "-m", "anonvma", *words]
    done = subprocess.run(argv, stderr=subprocess.PIPE, timeout=600, **more)  # type: ignore[call-overload]
    return done.returncode, done.stderr.decode(errors="replace")


def test_a_full_disk_behind_standard_output() -> None:
    with open("/dev/full", "wb") as full:
        code, said = said_by(["runs", "--in", str(RECORDED)], stdout=full)
    assert code == 1 and re.fullmatch(r"anonvma: writing the output: No space left.*\n", said)


def test_a_closed_standard_output() -> None:
    argv = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "anonvma", "runs", "--in"]
    done = subprocess.run([*argv, RECORDED], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "anonvma: writing the output: Bad file descriptor.\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("libm.so.6: failed to map segment from shared object"), "cannot be loaded"),
        (duckdb.OutOfMemoryException("Allocation failure"), "not enough memory for this"),
    ],
)
def test_little_memory(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    """As `ulimit -v` makes it; how much is too little differs from machine to machine."""

    def connect(*_: object) -> None:
        raise error

    monkeypatch.setattr(duckdb, "connect", connect)
    done = CliRunner().invoke(main, ["runs", "--in", str(RECORDED)])
    assert done.exit_code == 1 and said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["lint", "/dev/zero"],
        ["query", b"select '\xff'", "--in", str(RECORDED)],
        ["query", "--memory", "-1", "select 1", "--in", str(RECORDED)],
    ],
)
def test_words_that_cannot_be(words: list[str | bytes]) -> None:
    code, said = said_by(words, stdout=subprocess.DEVNULL)
    assert code and "Traceback" not in said and said.startswith("anonvma: ")
    assert said.count("\n") == 1


PLAIN: dict[str, Any] = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(PLAIN), "does not say which kernel it wants"),
        (json.dumps(PLAIN | {"metadata": {"kernelspec": {"name": "forth"}}}), "kernel 'forth'"),
        (json.dumps(PLAIN | {"cells": None}), "it has not what one has"),
        (json.dumps(PLAIN | {"nbformat": 9}), "version 9"),
        (json.dumps([PLAIN]), "it has not what one has"),
        ("", "is not JSON"),
        ("\udcff{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_notebook(tmp_path: Path, content: str, said: str) -> None:
    source = tmp_path / "own.ipynb"
    source.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(NotebookError, match=said) as refused:
        notebooks.execute(str(source), tmp_path / "executed.ipynb", {})
    assert "\n" not in str(refused.value)
    source.unlink()
    source.mkdir()
    with pytest.raises(NotebookError, match="no regular file"):
        notebooks.execute(str(source), tmp_path / "executed.ipynb", {})


QUERY = ["query", "--in", str(paths.recorded())]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "--bytes", "999999t"], "more mappings than a process may have"),
        (["report", "--repeats", "9" * 20], "from 1 to 1,000,000"),
        ([*QUERY, "--memory", "999999TB", "select 1"], "more memory than the"),
        ([*QUERY, "--memory", "1..5GB", "select 1"], "no amount of memory"),
        (["census", "--most", "-1"], "--most"),
        (["compare", "early-*", "delayd*"], "did you mean 'delayed-*'?"),
        (["cost", "--workload", "smal-allocs-mt"], "did you mean 'small-allocs-mt'?"),
        (["batch", str(paths.root() / "data/studies/piar.yaml")], "did you mean 'pair.yaml'?"),
    ],
)
def test_words_and_numbers_that_nothing_has(words: list[str | bytes], said: str) -> None:
    code, told = said_by(words, stdout=subprocess.DEVNULL)
    assert code and said in told and "Traceback" not in told


@pytest.mark.parametrize("image", ["/dev/zero", "/proc/kmsg", "/dev"])
def test_a_device_is_no_kernel_image(image: str) -> None:
    with pytest.raises(TargetError):
        open_image(image)


def test_a_fifo_is_no_kernel_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "bzImage")
    with pytest.raises(TargetError, match="no regular file"):
        open_image(str(tmp_path / "bzImage"))
    with pytest.raises(OSError, match="more than 0 MiB"):
        bounded.read(Path("/dev/zero"), 1000)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("pivot runs on kind", "PIVOT into several"),
        ("explain analyze create table x as select 1", "more than a SELECT"),
        ("explain drop view headlines", "more than a SELECT"),
    ],
)
def test_what_looks_like_a_question(sql: str, said: str) -> None:
    with Store([RECORDED]) as store:
        with pytest.raises(StoreError, match=said):
            store.query(sql)
        assert len(store.query("explain select * from runs"))


def test_scratch_of_the_dead_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = (
        "import os, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from anonvma.base import scratch\n"
        "(scratch.make('report') / 'x').touch(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    (left,) = tmp_path.glob("anonvma-report-*")
    (tmp_path / "anonvma-notes").mkdir()  # somebody's
    with scratch.directory("store") as ours:
        assert not left.exists() and ours.is_dir() and ours.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["anonvma-notes"]
    with pytest.raises(StoreError, match="no amount of memory"):
        Store([RECORDED], memory="nonsense")
    assert [path.name for path in tmp_path.iterdir()] == ["anonvma-notes"]


def test_one_that_has_ended_and_was_not_waited_for_is_dead() -> None:
    """Or what it left would lie there for as long as its parent waits for nobody."""
    child = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    assert scratch.start_time(child) is None
    os.waitpid(child, 0)
    assert scratch.start_time(os.getpid()) is not None


def test_the_lock_of_this_machine_lies_where_nobody_else_can_hold_it() -> None:
    lock = job._machine_lock()
    assert lock.parent.stat().st_uid == os.getuid() and not lock.parent.stat().st_mode & 0o077
    with open("/proc/self/status", "rb") as any_file:  # not a file that all can open
        fcntl.flock(any_file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_wait_says_for_whom(tmp_path: Path) -> None:
    told: list[str] = []
    code = (
        "import sys; from pathlib import Path; from anonvma.study import job as cell\n"
        "with cell._locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"held\n" and other.stdin
        stdin = other.stdin

        def waits(who: str) -> None:
            told.append(who)
            stdin.close()

        with job._locked(tmp_path / "lock", waits):
            assert told == [str(other.pid)]
