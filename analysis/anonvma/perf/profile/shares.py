# SPDX-License-Identifier: GPL-2.0-only
"""Shares of what perf sampled, by function and by call path.

The rows that the kernel test robot prints are these (lkp-tests, programs/perf-profile/parse):

``perf-profile.self.EVENT.F``
    samples whose innermost function is F;
``perf-profile.children.EVENT.F``
    samples that have F anywhere in their stack, each counted once however often F recurs;
``perf-profile.calltrace.EVENT.F.G.H.I.J``
    samples that have F, called by G, called by H, ...: five functions at most, the innermost first,
    and F where it is innermost in the stack. A stack of n functions so adds to n rows.

All are percentages of the event's periods, weighted as ``perf report`` weighs them. The endings
``.isra.N``, ``.constprop.N`` and ``.part.N`` that a compiler gives to copies of a function are
taken off, ``:`` in an event's name becomes ``-`` (cycles:pp, cycles-pp), and rows below 0.05 are
left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base.errors import ProfileError
from anonvma.perf.profile.reading import events, main_event, of_run, select
from anonvma.perf.stacks import Profile
from anonvma.run.runs import Run

_LEVELS = 5  # of a calltrace row
_LEAST = 0.05  # percent
_COPIES = re.compile(r"\.(isra|constprop|part)\.[0-9]+")

Kind = Callable[[Profile, str | None], "pd.Series[float]"]
"""`self_`, `children`, `calltrace` or `parts`."""


class Weighed:
    """Stacks of one event, each with its share of the periods."""

    def __init__(self, profile: Profile, event: str | None) -> None:
        chosen = select(profile, event)
        self.event = str(chosen.samples["event"].iloc[0])
        count = len(profile.offsets) - 1
        weights = np.bincount(
            chosen.samples["stack"].to_numpy(np.int64),
            chosen.samples["period"].to_numpy(np.float64),
            count,
        )
        if not weights.sum():
            raise ProfileError(f"every sample of {self.event!r} has a period of 0.")
        self.share = 100 * weights / weights.sum()  # of a stack, in percent
        names = profile.frames["symbol"].map(without_copies)
        codes, self.names = pd.factorize(names)
        lengths = np.diff(profile.offsets)
        self.symbol = codes[profile.frame_ids.astype(np.int64)]  # of a frame in a stack
        self.stack = np.repeat(np.arange(count), lengths)
        self._starts, self._lengths = profile.offsets[:-1], lengths

    def by_symbol(self, symbols: npt.NDArray[np.int64], stacks: npt.NDArray[np.int64]) -> _Shares:
        """Return the percentage of each symbol, given where it is and in which stack."""
        sums = np.bincount(symbols, self.share[stacks], len(self.names))
        return pd.Series(sums, index=pd.Index(self.names, name="symbol"), name="percent")

    def leaves(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the innermost symbol of each stack that has any, and the stack."""
        stacks = np.flatnonzero(self._lengths > 0)
        return self.symbol[self._starts[stacks]], stacks

    def firsts(self) -> npt.NDArray[np.int64]:
        """Return the places where a symbol is for the first time in its stack, from within."""
        key = self.stack.astype(np.int64) * max(len(self.names), 1) + self.symbol
        return np.sort(np.unique(key, return_index=True)[1])


_Shares = pd.Series  # of float64, in percent, by symbol


def without_copies(symbol: str) -> str:
    """Return a symbol without the endings that a compiler gives to copies of a function."""
    return _COPIES.sub("", symbol)


def self_(profile: Profile, event: str | None = None) -> pd.Series[float]:
    """Return the percentage that each symbol has as the innermost function."""
    weighed = Weighed(profile, event)
    return _sorted(weighed.by_symbol(*weighed.leaves()))


def children(profile: Profile, event: str | None = None) -> pd.Series[float]:
    """Return the percentage that each symbol has anywhere in a stack."""
    weighed = Weighed(profile, event)
    places = weighed.firsts()
    return _sorted(weighed.by_symbol(weighed.symbol[places], weighed.stack[places]))


def calltrace(
    profile: Profile, event: str | None = None, levels: int = _LEVELS
) -> pd.Series[float]:
    """Return the percentage of each path of callers, ``F.G.H``: F called by G called by H."""
    weighed = Weighed(profile, event)
    places = weighed.firsts()
    # A column for each level; -1 beyond the outermost.
    ends = profile.offsets[1:][weighed.stack[places]]
    columns = [
        np.where(places + level < ends, _at(weighed.symbol, places + level), -1)
        for level in range(levels)
    ]
    # Level by level: to sort rows of numbers takes numpy far longer than to sort numbers.
    inverse = np.zeros(len(places), np.int64)
    for column in columns:
        path = inverse * (len(weighed.names) + 1) + column + 1
        _, first, inverse = np.unique(path, return_index=True, return_inverse=True)
    paths = np.column_stack(columns)[first].tolist()
    sums = np.bincount(inverse, weighed.share[weighed.stack[places]], len(paths))
    known = weighed.names.tolist()
    names = [".".join(known[code] for code in path if code >= 0) for path in paths]
    return _sorted(pd.Series(sums, index=pd.Index(names, name="path"), name="percent"))


def _at(values: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return values[np.minimum(places, len(values) - 1)]


def _sorted(shares: pd.Series[float]) -> pd.Series[float]:
    found: pd.Series[float] = shares[shares > 0].sort_values(ascending=False, kind="stable")
    return found


def rows(profile: Profile, event: str | None = None, least: float = _LEAST) -> pd.Series[float]:
    """Return the kernel test robot's rows of one event, by their full names, in percent."""
    name = (event or main_event(profile)).replace(":", "-")
    kinds = {"calltrace": calltrace, "children": children, "self": self_}
    found = pd.concat(
        [
            shares.set_axis([f"perf-profile.{kind}.{name}.{row}" for row in shares.index])
            for kind, shares in ((kind, of(profile, event)) for kind, of in kinds.items())
        ]
    )
    return found[found >= least]


def metrics(run: Run) -> pd.DataFrame:
    """Return the rows of a run, as `anonvma.tables.metrics` wants them.

    Returns
    -------
    DataFrame
        repeat (int64), metric (str), value (float64, percent). Empty where nothing was sampled. A
        row that fell below 0.05 in one repeat is there if another repeat has it.
    """
    if "samples" not in run.manifest.tables:
        return _metrics_frame([])
    profiles = of_run(run)
    whole = {
        (repeat, event): rows(profile, event, least=0)
        for repeat, profile in profiles.items()
        for event in events(profile)
        if profile.samples.loc[profile.samples["event"] == event, "period"].any()
    }
    kept = {name for shares in whole.values() for name in shares.index[shares >= _LEAST]}
    found = []
    for (repeat, event), shares in whole.items():
        prefix = f".{event.replace(':', '-')}."
        of_event = {name for name in kept if prefix in name}
        # What one repeat has and another has not is 0 there: it was looked for.
        for name in sorted(of_event):
            found.append((repeat, name, float(shares.get(name, 0.0))))
    return _metrics_frame(found)


def _metrics_frame(found: Sequence[tuple[int, str, float]]) -> pd.DataFrame:
    frame = pd.DataFrame(found, columns=["repeat", "metric", "value"])
    return frame.astype({"repeat": "int64", "metric": "str", "value": "float64"})


def mean(of: Run | Sequence[Run], kind: Kind, event: str | None = None) -> pd.DataFrame:
    """Return one of `self_`, `children`, `calltrace` or `parts`, and how sure it is.

    Parameters
    ----------
    of : Run or sequence of Run
        One run, whose repeats are what is averaged; or several, such as one a boot, of which each
        counts once, as the mean of its repeats.

    Returns
    -------
    DataFrame
        By row, n (repeats or runs), mean and sd (sample standard deviation; null for n of 1), in
        percent. What one has and another has not is 0 there.
    """
    if not isinstance(of, Run) and len(of) == 1:
        of = of[0]
    if isinstance(of, Run):
        each = {repeat: kind(profile, event) for repeat, profile in of_run(of).items()}
    else:
        each = {number: mean(run, kind, event)["mean"] for number, run in enumerate(of)}
    found = pd.DataFrame(each).fillna(0.0)
    return pd.DataFrame({"n": found.shape[1], "mean": found.mean(axis=1), "sd": found.std(axis=1)})
