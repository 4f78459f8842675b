# SPDX-License-Identifier: GPL-2.0-only
"""The view of a machine that is watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from anonvma.base.numerals import percent
from anonvma.explore.address_map import STATE_COLOURS
from anonvma.explore.filter import size
from anonvma.explore.live import Watch
from anonvma.explore.view import MOST, View
from anonvma.tables import census
from anonvma.tables.census import CLASSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def live(watch: Watch) -> View:
    """What a watch has seen: how it goes on, what changed, and what watching costs."""
    words = [watch.trouble] if watch.trouble else []
    if not watch.steps:
        return View("Live", words or ["The first census is being taken."])
    last = watch.steps[-1]
    how = "Watching" if watch.running else "Not watching any more"
    words.append(
        f"{how}: {len(watch.steps)} censuses, one every {watch.every:g} s. The last found "
        f"{last.vmas:,} VMAs, {sum(last.states[name] for name in CLASSES):,} of them bare with "
        f"{last.zero:,} zero pages."
    )
    words.append(
        f"Cost: the last census took {last.seconds:.2f} s and {last.cpu:.2f} s of a CPU; at this "
        f"pace that is {percent(last.share)} of one CPU."
    )
    if watch.census is not None and any(watch.census.losses.values()):
        lost = census.losses(watch.census.losses)
        lost = lost[lost["count"] > 0]
        told = "; ".join(f"{row.count} {row.lost}" for row in lost.itertuples(index=False))
        words.append(f"Lost while reading: {told}.")
    tables = []
    if watch.changed is None:
        words.append("There is nothing to compare the first census with yet.")
    elif watch.changed.empty:
        words.append("Since the census before nothing changed.")
    else:
        words.append(
            f"Since the census before {watch.changed['vmas'].sum():,} VMAs changed; the "
            f"{min(MOST, len(watch.changed))} largest of {len(watch.changed)} kinds of change:"
        )
        table = watch.changed.head(MOST)
        tables.append(table.assign(bytes=[_signed(int(value)) for value in table["bytes"]]))
    figures = []
    if len(watch.steps) > 1:
        figures.append((_plot_history(watch.history()), "Bare VMAs by class over time."))
    return View("Live", words, [_trimmed_ids(table) for table in tables], figures)


def _signed(count: int) -> str:
    return f"{'-' if count < 0 else '+'}{size(abs(count))}"


def _trimmed_ids(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype({"tgid": "str"})


def _plot_history(history: pd.DataFrame) -> Figure:
    """Draw how many bare VMAs of each class there were, census by census."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    from anonvma.base.drawing import sns

    figure = Figure(figsize=(7.5, 2.6), layout="constrained")
    ax = figure.subplots()
    styles = dict(zip(CLASSES, ("--", ":", "-", "-."), strict=True))
    for name in CLASSES:
        if history[name].any():
            colour = STATE_COLOURS[name]
            ax.plot(history["at"], history[name], styles[name], color=colour, label=name)
    ax.set(xlabel="s since watching began", ylabel="bare VMAs")
    ax.yaxis.set_major_formatter(EngFormatter())
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))
    sns.despine(ax=ax)
    return figure
