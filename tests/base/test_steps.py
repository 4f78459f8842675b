# SPDX-License-Identifier: GPL-2.0-only
"""What a notebook says of its progress reaches whoever runs it, and stays out of its outputs."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import struct
import termios
from pathlib import Path

import nbformat
import pytest

from anonvma.base.steps import STEPS
from anonvma.cli.bar import Bar
from anonvma.report import notebooks

STEPPING = """
from anonvma.base import steps; from anonvma.study import parameters
parameters.check()
with steps.bar() as show:
    show(1, 4, "repeat 2 of 3, tracing faults")
print("done")
"""


def test_steps_reach_who_asked_and_leave_no_trace(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "x", "language": "python"}
    notebook.cells = [nbformat.v4.new_code_cell(STEPPING)]  # type: ignore[no-untyped-call]
    source = tmp_path / "stepping.ipynb"
    nbformat.write(notebook, source)  # type: ignore[no-untyped-call]
    told: list[tuple[float, str]] = []
    done = notebooks.execute(
        str(source), tmp_path / "out.ipynb", {}, lambda share, what: told.append((share, what))
    )
    assert told == [(0.0, "cell 1 of 1"), (0.25, "repeat 2 of 3, tracing faults")]
    assert notebooks.result(done) == {}
    assert [output.get("text") for output in done.cells[-1].outputs] == ["done\n"]
    assert STEPS not in (tmp_path / "out.ipynb").read_text()


def test_without_a_terminal_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    with Bar({"one": 1.0, "two": 3.0}) as bar:
        bar.of("one")(1, "done")
        bar.of("two")(0.5, "repeat 2 of 3, tracing faults")
    assert written.getvalue() == ""


def all_of(terminal: int) -> bytes:
    """What was written to a terminal that is closed: the kernel passes it on a little later."""
    shown = b""
    with os.fdopen(terminal, "rb", buffering=0) as ours, contextlib.suppress(OSError):  # EIO: all
        while some := ours.read(1 << 16):
            shown += some
    return shown


def test_on_a_terminal_one_bar_counts_all_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with Bar({"one": 1.0, "two": 3.0}) as bar:
            bar.of("one")(1, "done")
            bar.of("two")(1 / 3, "repeat 2 of 3, tracing faults")
            bar.of("two")(0, "it never goes back")
    shown = all_of(ours).decode()
    assert "two: repeat 2 of 3, tracing faults" in shown
    assert " 50 % |" in shown.rpartition("tracing faults")[0].rpartition("\r")[2]
    assert " 50 % |" in shown.partition("it never goes back")[0].rpartition("\r")[2]
    assert "\n" not in shown.strip()
