# SPDX-License-Identifier: GPL-2.0-only
"""JupyterLab on the explorer, as the user who starts it, on the loopback address only.

Never as root: a page's kernel does whatever the page says. The live view needs no more than the
probe to be privileged, by ``sudo -n`` or by file capabilities (`anonvma.explore.live`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from anonvma.base import paths
from anonvma.base.errors import SetupError
from anonvma.explore.live import CAPABILITIES

NOTEBOOK = Path("notebooks") / "explore.ipynb"

_AS_ROOT = (
    "JupyterLab is not run as root: start it as an ordinary user who can read this checkout, such "
    "as by 'sudo -u USER .venv/bin/anonvma lab'. For its live view let that user use sudo without "
    f"a password, or give the probe what it needs: setcap {CAPABILITIES} build/vmaprobe."
)


# It ends when we do, be it by SIGKILL: PR_SET_PDEATHSIG, which a change of user before would have
# cleared. Until it handles Ctrl-C itself, that ends it without a traceback.
_START = """
import ctypes, os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit(1)
from jupyterlab.labapp import main
sys.exit(main())
"""


def command(notebook: Path, browser: bool, port: int, more: Sequence[str] = ()) -> list[str]:
    """Return the words that start JupyterLab; what it listens on comes last, and so counts."""
    words = [
        sys.executable,
        "-c",
        _START,
        str(os.getpid()),
        *([] if browser else ["--no-browser"]),
        *more,
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.allow_remote_access=False",
        f"--ServerApp.port={port}",
        f"--ServerApp.root_dir={paths.root()}",
        # What it prints, and a browser elsewhere is given, opens the notebook, not the launcher.
        f"--LabApp.default_url=/lab/tree/{urllib.parse.quote(str(notebook))}",
        # Its kernels' own sockets, too.
        "--KernelManager.ip=127.0.0.1",
        # It neither fetches news nor asks whether it may, over the page.
        "--LabApp.news_url=None",
        f"--LabApp.app_settings_dir={Path(__file__).parent / 'settings'}",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    ]
    return [*words, str(paths.root() / notebook)]


def run(
    notebook: Path = NOTEBOOK,
    *,
    browser: bool = True,
    port: int = 8888,
    words: Sequence[str] = (),
) -> int:
    """Run JupyterLab until it ends, and return its exit status.

    Whoever asks us to end asks it, and we end when it has.

    Parameters
    ----------
    notebook : path
        What it opens, in the checkout.
    browser : bool
        Whether to open a browser.
    port : int
        If it is taken, the next one that is free.
    words : sequence of str
        More options of JupyterLab.

    Raises
    ------
    SetupError
        For root; it says how to start it instead.
    """
    if os.geteuid() == 0:
        raise SetupError(_AS_ROOT)
    process = subprocess.Popen(command(notebook, browser, port, words), cwd="/")

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGTERM)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGHUP)}
    # Ctrl-C reaches it from the terminal; it asks whether that was meant.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # Asked to end it ends by that signal, as it should.
    return 0 if status in (0, -signal.SIGTERM) else 130 if status == -signal.SIGINT else 1
