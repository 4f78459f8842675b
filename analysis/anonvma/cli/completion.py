# SPDX-License-Identifier: GPL-2.0-only
"""Words that name something: runs, targets, cases; what the shell may complete them to.

One that names nothing is refused as the command line is read, before anything is imported that
could open it. Nothing is opened here.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from anonvma.base import paths
from anonvma.base.errors import SetupError
from anonvma.collect import preflight, targets
from anonvma.report import publication
from anonvma.run import catalogue


class _Named(click.ParamType, abc.ABC):  # type: ignore[type-arg]
    """A text, completed to one of several names, else to a file."""

    @abc.abstractmethod
    def names(self) -> Iterable[str]:
        """Return the names."""

    def convert(
        self, value: str, param: click.Parameter | None, context: click.Context | None
    ) -> str:
        """Return the text as it is."""
        self.check(str(value))
        return str(value)

    def check(self, value: str) -> None:
        """Refuse what names nothing, by an AnonvmaError; what cannot be told here passes."""

    def shell_complete(
        self, context: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return what the shell offers for a word that has been begun."""
        found = [name for name in self.names() if name.startswith(incomplete)]
        if not found and ("/" in incomplete or incomplete.startswith(".")):
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(name) for name in found]


class RunName(_Named):
    """The name of a run, which has some tables."""

    name = "run"

    def __init__(self, *needs: str) -> None:
        self.needs = needs

    def check(self, value: str) -> None:
        """Refuse what is no run, or lacks a table."""
        catalogue.place(value, self.needs)

    def names(self) -> Iterable[str]:
        """Return ``latest``, then the recorded runs and the user's own."""
        return ["latest", *catalogue.known()]


class Publishable(RunName):
    """The name of a run, or of a study's directory, or ``BASE..HEAD``."""

    def check(self, value: str) -> None:
        """Refuse what `anonvma.report.publish` would not find."""
        publication.check_names([value])


class Pattern(_Named):
    """Names of runs, the number of the boot held by a wildcard."""

    name = "pattern"

    def check(self, value: str) -> None:
        """Refuse what no run is called; a directory may be of an experiment."""
        if not Path(value).is_dir():
            preflight.condition(value)

    def names(self) -> Iterable[str]:
        """Return each name, and the pattern that it belongs to."""
        stems = {
            name.rstrip("0123456789") + "*" for name in catalogue.known() if name[-1].isdigit()
        }
        return [*sorted(stems), *catalogue.known()]


class Target(_Named):
    """A target."""

    name = "target"

    def check(self, value: str) -> None:
        """Refuse what cannot be one."""
        targets.check(value)

    def names(self) -> Iterable[str]:
        """Return this machine, the kernels that are built, and the hosts that ssh knows by name."""
        kernels = paths.build() / "kernels"
        images = sorted([*kernels.glob("*/bzImage"), *kernels.glob("arm64*/*/Image")])
        return ["local", *(f"guest:{image}" for image in images), *map("ssh:{}".format, _hosts())]


class WorkloadName(_Named):
    """A workload."""

    name = "workload"

    def names(self) -> Iterable[str]:
        """Return the cases of vmload, and what else has a name of its own."""
        from anonvma.collect.workload import cases

        try:
            return [*cases(), "specimens", "pid:"]
        except SetupError:
            return ["specimens", "pid:"]


def _hosts() -> list[str]:
    """Return the hosts of the user's own configuration of ssh; patterns are none."""
    try:
        text = (Path.home() / ".ssh" / "config").read_text(errors="replace")
    except OSError:
        return []
    words = [line.split()[1:] for line in text.splitlines() if line.lower().startswith("host ")]
    return [host for hosts in words for host in hosts if not set(host) & set("*?!")]
