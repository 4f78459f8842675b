# SPDX-License-Identifier: GPL-2.0-only
"""JupyterLab goes on no longer than the command that started it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import processes
from waiting import until


def test_jupyterlab_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Even if that is killed; and it does not begin where that is gone already."""
    begun = tmp_path / "begun"
    (tmp_path / "jupyterlab").mkdir()
    (tmp_path / "jupyterlab" / "__init__.py").touch()
    (tmp_path / "jupyterlab" / "labapp.py").write_text(
        f"import pathlib, time\ndef main():\n    pathlib.Path({str(begun)!r}).touch()\n"
        "    time.sleep(3600)\n"
    )
    start = "import subprocess, sys; from anonvma.explore import lab; import pathlib, time\n"
    start += "words = lab.command(pathlib.Path('x'), False, 0)\n"
    start += "if sys.argv[1:]: words[words.index(lab._START) + 1] = '1'\n"
    start += "sys.exit(subprocess.run(words).returncode)"
    token = processes.new_token()
    own = {**os.environ, "PYTHONPATH": str(tmp_path), processes.VARIABLE: token}
    assert subprocess.run([sys.executable, "-c", start, "gone"], env=own, check=False).returncode
    assert not begun.exists()
    with subprocess.Popen([sys.executable, "-c", start], env=own) as process:
        until(lambda: begun.exists() or process.poll() is not None)
        process.kill()
    assert processes.survivors(token) == []
