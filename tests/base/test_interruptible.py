# SPDX-License-Identifier: GPL-2.0-only
"""Ctrl-C while a command still starts: it ends silently or in a sentence, with no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE, until

from anonvma.base import termination

KILL = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


def test_an_import_is_not_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torn_never.py").write_text(f"{KILL}whole = [n for n in range(9)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt), termination.interruptible():
        import torn_never

        assert torn_never.whole[-1] == 8
        until(lambda: False)


def test_what_a_library_makes_of_an_interrupt_is_one() -> None:
    with pytest.raises(KeyboardInterrupt), termination.interruptible():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("Query interrupted") from error


def test_a_finalizer_does_not_swallow_it() -> None:
    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), termination.interruptible():
        Finalized()
        until(lambda: False)


def test_an_error_is_one_when_nobody_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM), sys.unraisablehook
    with pytest.raises(ZeroDivisionError), termination.interruptible():
        raise ZeroDivisionError
    assert before == (
        signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM), sys.unraisablehook
    )  # fmt: skip


START = """
import os, sys, anonvma.__main__

class Interrupting:
    def find_spec(self, name, *others):
        if name == sys.argv[1]:
            os.kill(os.getpid(), 2)

sys.meta_path.insert(0, Interrupting())
anonvma.__main__.main()
"""


@pytest.mark.parametrize("module", ["click", "anonvma.base.paths"])
def test_before_it_begins_it_ends_silently(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START, module], capture_output=True, text=True, timeout=PATIENCE,
        check=False, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
