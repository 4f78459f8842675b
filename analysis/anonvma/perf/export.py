# SPDX-License-Identifier: GPL-2.0-only
"""Profiles for other programs: folded stacks, which flamegraph.pl, inferno and speedscope read."""

from __future__ import annotations

from anonvma.perf import profile as perf_profile
from anonvma.perf.stacks import Profile


def folded(profile: Profile, event: str | None = None) -> str:
    """Return folded stacks, a line each: ``comm;outermost;...;innermost PERIOD``."""
    sums = perf_profile.folded(profile, event)
    return "".join(f"{stack} {int(weight)}\n" for stack, weight in sums.items())
