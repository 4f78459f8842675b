# SPDX-License-Identifier: GPL-2.0-only
"""Where things lie: the built programs, the recorded runs, the user's own runs."""

from __future__ import annotations

import functools
import os
import re
import tomllib
from pathlib import Path

from anonvma.base.errors import SetupError


def root() -> Path:
    """Return the checkout this package is in, or the current directory if it is in none."""
    checkout = Path(__file__).resolve().parents[3]
    return checkout if (checkout / "analysis" / "anonvma").is_dir() else Path.cwd()


def build() -> Path:
    """Return where the built programs are: ``$ANONVMA_BUILD``, else ``build/`` in the checkout."""
    return Path(os.environ.get("ANONVMA_BUILD") or root() / "build")


def programs() -> Path:
    """Return where ``make programs`` unpacks the packages of programs that studies run."""
    return build() / "programs"


def kernel(name: str) -> Path:
    """Return the image that ``make kernels`` builds under a name: ``early``, ``arm64/early``."""
    directory = build() / "kernels" / name
    image = directory / "Image"  # of arm64
    return image if image.exists() else directory / "bzImage"


def runs() -> Path:
    """Return the directory that new runs go to: ``$ANONVMA_RUNS``, else ``data/runs``."""
    return Path(os.environ.get("ANONVMA_RUNS") or root() / "data" / "runs")


def recorded() -> Path:
    """Return the directory of the runs that come with the project."""
    return root() / "data" / "recorded"


def project_url() -> str | None:
    """Return where the project is published: ``$ANONVMA_URL``, else what pyproject.toml says.

    None where neither is an address of the web.
    """
    address = os.environ.get("ANONVMA_URL") or _repository()
    return address if re.fullmatch(r"https?://[!-~]+", address) else None


@functools.cache
def _repository() -> str:
    """Return ``Repository`` of [project.urls] in pyproject.toml; nothing where it is not set."""
    try:
        settings = tomllib.loads((root() / "pyproject.toml").read_text(encoding="utf-8"))
        return str(settings["project"]["urls"]["Repository"])
    except (OSError, ValueError, KeyError, TypeError):  # a wrong TOML is a ValueError, too
        return ""


def program(name: str, arch: str = "") -> Path:
    """Return the path of one of our own programs.

    Parameters
    ----------
    name : str
    arch : str
        The architecture it is for, as the kernel names it; empty for this machine's own.

    Raises
    ------
    SetupError
        When it has not been built.
    """
    path = build() / arch / name
    if not os.access(path, os.X_OK, effective_ids=True):  # by its capabilities, too
        words = f"make build ARCH={arch}" if arch else "make build"
        raise SetupError(
            f"{name} is not built ({path} is missing or not executable): run '{words}' first."
        )
    return path


def short(path: Path) -> str:
    """Return a path as it is shorter: from here, if it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
