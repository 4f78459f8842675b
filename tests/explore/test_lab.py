# SPDX-License-Identifier: GPL-2.0-only
"""`anonvma lab`: what it listens on, and that root does not get it; a browser has its own test."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from anonvma.base.errors import SetupError
from anonvma.explore import lab


def test_root_is_told_how_to_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(SetupError, match=r"not run as root: .* 'sudo -u USER .* setcap cap_bpf"):
        lab.run()


def test_what_it_listens_on_cannot_be_overridden() -> None:
    words = lab.command(lab.NOTEBOOK, False, 9999, ["--ServerApp.ip=0.0.0.0"])
    addresses = [word for word in words if word.startswith("--ServerApp.ip=")]
    assert addresses[-1] == "--ServerApp.ip=127.0.0.1"
    assert words.index(addresses[0]) < words.index(addresses[-1])
    assert "--no-browser" in words and words[-1].endswith("explore.ipynb")


def test_nothing_asks_over_the_page_whether_it_may_fetch_news() -> None:
    """JupyterLab reads this file for its settings' defaults; the browser's test sees the page."""
    words = lab.command(lab.NOTEBOOK, False, 9999)
    (given,) = [word for word in words if word.startswith("--LabApp.app_settings_dir=")]
    overrides = json.loads((Path(given.partition("=")[2]) / "overrides.json").read_text())
    assert overrides["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
