# SPDX-License-Identifier: GPL-2.0-only
"""What tracing costs the workload: its speed traced over its speed untraced."""

from __future__ import annotations

import pandas as pd

from anonvma.base import statistics


def cost(tracing: pd.DataFrame) -> pd.DataFrame:
    """What tracing costs the workload: its speed traced over its speed untraced, in pairs.

    Returns
    -------
    DataFrame
        One row per tracer: traced (``events``: faults, and each as an event), n (repeats), untraced
        and with it (mean throughput, MiB/s; null for a workload that prints none), ratio (geometric
        mean; below 1 is slower), low and high (95 % confidence interval by Student's t on the
        logarithms; null for n below 3). Speed is the workload's throughput, or where it prints
        none, 1 / its time. No rows where neither is known.
    """
    rate = tracing["kb_per_s"].astype("float64")
    speed = rate.fillna(1 / tracing["seconds"].astype("float64"))
    every = tracing.assign(rate=rate, speed=speed)
    wide = every.pivot(index="repeat", columns="traced", values="speed")
    rates = every.pivot(index="repeat", columns="traced", values="rate")
    rows = []
    for name in ("faults", "events", "locks", "time"):
        if name not in wide or "untraced" not in wide:
            continue
        pairs = wide[["untraced", name]].dropna()
        if len(pairs):
            each = statistics.estimate(pairs[name] / pairs["untraced"], ratio=True)
            times = {"n": each.n, "ratio": each.mean, "low": each.low, "high": each.high}
            mib = rates.loc[pairs.index, ["untraced", name]].mean() / 1024
            means = {"untraced": mib["untraced"], "with it": mib[name]}
            rows.append({"traced": name, **means, **times})
    columns = ["traced", "n", "untraced", "with it", "ratio", "low", "high"]
    return pd.DataFrame(rows, columns=columns)
