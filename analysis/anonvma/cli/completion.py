# SPDX-License-Identifier: GPL-2.0-only
"""What the shell may complete a word to: names of runs, targets, cases; nothing is opened."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from anonvma import catalogue, places
from anonvma.errors import SetupError

__all__ = ["Pattern", "RunName", "Target", "WorkloadName"]


class _Named(click.ParamType):  # type: ignore[type-arg]
    """A text, completed to one of several names, else to a file."""

    def names(self) -> Iterable[str]:
        """Return the names."""
        raise NotImplementedError

    def convert(
        self, value: str, param: click.Parameter | None, context: click.Context | None
    ) -> str:
        """Return the text as it is: whoever uses it says what is wrong with it."""
        return str(value)

    def shell_complete(
        self, context: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return what the shell offers for a word that has been begun."""
        found = [name for name in self.names() if name.startswith(incomplete)]
        if not found and ("/" in incomplete or incomplete.startswith(".")):
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(name) for name in found]


class RunName(_Named):
    """The name of a run."""

    name = "run"

    def names(self) -> Iterable[str]:
        """Return ``latest``, then the recorded runs and the user's own."""
        return ["latest", *catalogue.known()]


class Pattern(_Named):
    """Names of runs, the number of the boot held by a wildcard."""

    name = "pattern"

    def names(self) -> Iterable[str]:
        """Return each name, and the pattern that it belongs to."""
        stems = {
            name.rstrip("0123456789") + "*" for name in catalogue.known() if name[-1].isdigit()
        }
        return [*sorted(stems), *catalogue.known()]


class Target(_Named):
    """A target."""

    name = "target"

    def names(self) -> Iterable[str]:
        """Return this machine, the kernels that are built, and the hosts that ssh knows by name."""
        images = sorted((places.build() / "kernels").glob("*/bzImage"))
        return ["local", *(f"guest:{image}" for image in images), *map("ssh:{}".format, _hosts())]


class WorkloadName(_Named):
    """A workload."""

    name = "workload"

    def names(self) -> Iterable[str]:
        """Return the cases of vmload, and what else has a name of its own."""
        from anonvma.workload import cases

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
