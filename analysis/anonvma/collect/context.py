# SPDX-License-Identifier: GPL-2.0-only
"""What the parts of a collection share: where it runs, what, and what has come in."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path

from anonvma.collect.program import Surroundings
from anonvma.collect.results import Results
from anonvma.collect.workload import Workload
from anonvma.run.writer import RunWriter
from anonvma.target.target import Target

_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Context:
    """A collection that is under way."""

    target: Target
    workload: Workload
    writer: RunWriter
    results: Results = dataclasses.field(default_factory=Results)
    number: int = dataclasses.field(default_factory=lambda: next(_numbers))

    def place(self, name: str) -> str:
        """Return where a file is to be on the target: not where another collection left one."""
        return self.target.place(f"{self.number}-{name}")

    @functools.cached_property
    def surroundings(self) -> Surroundings:
        """What runs a command that starts the workload."""
        return Surroundings(self.workload, self.target)

    def raw(self, repeat: int, name: str) -> Path:
        """Return where a raw file of a repeat is to be in the run."""
        return self.writer.raw(f"repeat-{repeat}", name)
