# SPDX-License-Identifier: GPL-2.0-only
"""Which anonvma made a run."""

from __future__ import annotations

import functools
import importlib.metadata
import subprocess

from anonvma.base import paths


@functools.cache
def version() -> str:
    """Return the version of the installed anonvma, and the commit where it is a checkout.

    Such as ``0.1.0+g1234567890ab``, with ``.dirty`` behind it where files differ from the commit.
    """
    try:
        installed = importlib.metadata.version("anonvma")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return installed
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{installed}+g{commit}{'.dirty' if changed else ''}"


def _git(*words: str) -> str | None:
    """Return what git says of the checkout, None where there is no git or no checkout."""
    if not (paths.root() / ".git").exists():
        return None
    argv = ["git", "--no-optional-locks", "-C", str(paths.root()), *words]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
