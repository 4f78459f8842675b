# SPDX-License-Identifier: GPL-2.0-only
"""What an event is called: perf's name taken apart."""

from __future__ import annotations

import re
from typing import NamedTuple

_SAME = {"cpu-cycles": "cycles", "branch-instructions": "branches"}
"""Other names that perf has for an event."""


class Counter(NamedTuple):
    """What an event counts.

    Attributes
    ----------
    name : str
        Its usual name, without what follows.
    mode : str
        The modes of the processor that it is limited to, such as ``u``; empty for all.
    pmu : str
        Of a processor with several kinds of cores, those that it counts on; else empty.
    """

    name: str
    mode: str
    pmu: str


_MODIFIERS = re.compile(r"(?P<name>.+?):(?P<modifiers>[ukhIGHpPSDWeb]+)")
_PMU_EVENT = re.compile(r"(?P<pmu>[\w.-]+)/(?P<name>[^/=]+)/(?P<modifiers>[ukhIGHpPSDWeb]*)")
_CORES = re.compile(
    r"cpu(_core|_atom|_lowpower)?|arm(v[78]|_)?_?cortex_\w+|armv8_\w+|apple_\w+_pmu"
)
"""PMUs of cores; any other that has an event called cycles counts those of something else."""


def counter(event: str) -> Counter:
    """Take an event's name apart: ``cycles:u``, ``cpu_core/cycles/u``, ``sched:sched_switch``."""
    name, modifiers, pmu = event, "", ""
    within = _PMU_EVENT.fullmatch(event)
    if within:
        pmu, name, modifiers = within["pmu"], within["name"], within["modifiers"]
        if not _CORES.fullmatch(pmu):
            return Counter(event, "", "")
    behind = _MODIFIERS.fullmatch(name)
    if behind:
        name, modifiers = behind["name"], modifiers + behind["modifiers"]
    # Those that say how precise an address is, or how an event is scheduled, count the same.
    mode = "".join(sorted(set(modifiers) & set("ukhGHI")))
    return Counter(_SAME.get(name, name), mode, "" if pmu == "cpu" else pmu)
