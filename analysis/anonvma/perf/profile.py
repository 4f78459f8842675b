# SPDX-License-Identifier: GPL-2.0-only
"""Where the time goes: shares of what perf sampled, by function, by call path, by what it is for.

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

A profile by processor time sees a thread that spins or works, not one that sleeps: what waits for
mmap_lock asleep is in the table ``locks``, not here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base.errors import ProfileError
from anonvma.base.numerals import percent
from anonvma.base.text import printable
from anonvma.perf.script import Profile
from anonvma.run.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "PARTS",
    "by_vma_class",
    "calltrace",
    "children",
    "events",
    "fault_callers",
    "folded",
    "main_event",
    "mean",
    "metrics",
    "of_run",
    "parts",
    "plot_parts",
    "rows",
    "select",
    "self_",
    "sentences",
    "tables",
    "waits",
]

_LEVELS = 5  # of a calltrace row
_LEAST = 0.05  # percent
_COPIES = re.compile(r"\.(isra|constprop|part)\.[0-9]+")

Kind = Callable[[Profile, str | None], "pd.Series[float]"]
"""`self_`, `children`, `calltrace` or `parts`."""

# ---- reading ----


def of_run(run: Run) -> dict[int, Profile]:
    """Return what was sampled in each repeat of a run.

    Raises
    ------
    RunError
        When the run has no samples, with the reason that it gives.
    """
    tables = {name: run.table(name) for name in ("samples", "stacks", "frames")}
    found = {}
    for repeat in sorted(tables["samples"]["repeat"].unique()):
        part = {
            name: frame[frame["repeat"] == repeat].drop(columns="repeat")
            for name, frame in tables.items()
        }
        found[int(repeat)] = Profile.of_tables(**part)
    return found


def events(profile: Profile) -> list[str]:
    """Return the events sampled, the one with most samples first."""
    return [
        str(name) for name in profile.samples["event"].value_counts().loc[lambda n: n > 0].index
    ]


def main_event(profile: Profile) -> str:
    """Return the event that is about time: cycles or a clock if there, else the first.

    One whose samples stand for nothing, with a period of 0, only where there is no other.
    """
    periods = profile.samples.groupby("event", observed=True)["period"].sum()
    names = [name for name in events(profile) if periods[name] > 0] or events(profile)
    for wanted in ("cycles", "cpu-clock", "task-clock"):
        for name in names:
            if wanted in name:
                return name
    return names[0]


def select(profile: Profile, event: str | None = None, *, comm: str | None = None) -> Profile:
    """Return the samples of one event, by default the main one, and of one name of thread.

    Raises
    ------
    ProfileError
        When there is none.
    """
    samples = profile.samples
    wanted = event or main_event(profile)
    mine = samples[samples["event"] == wanted]
    if comm is not None:
        mine = mine[mine["comm"] == comm]
    if mine.empty:
        who = "" if comm is None else f" of threads called {comm!r}"
        raise ProfileError(
            f"there is no sample of {wanted!r}{who}: it has {', '.join(events(profile))}."
        )
    return Profile(mine, profile.offsets, profile.frame_ids, profile.frames)


# ---- shares ----


class _Weighed:
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
    weighed = _Weighed(profile, event)
    return _sorted(weighed.by_symbol(*weighed.leaves()))


def children(profile: Profile, event: str | None = None) -> pd.Series[float]:
    """Return the percentage that each symbol has anywhere in a stack."""
    weighed = _Weighed(profile, event)
    places = weighed.firsts()
    return _sorted(weighed.by_symbol(weighed.symbol[places], weighed.stack[places]))


def calltrace(
    profile: Profile, event: str | None = None, levels: int = _LEVELS
) -> pd.Series[float]:
    """Return the percentage of each path of callers, ``F.G.H``: F called by G called by H."""
    weighed = _Weighed(profile, event)
    places = weighed.firsts()
    # A column for each level; -1 beyond the outermost.
    ends = profile.offsets[1:][weighed.stack[places]]
    columns = [
        np.where(places + level < ends, _at(weighed.symbol, places + level), -1)
        for level in range(levels)
    ]
    paths, inverse = np.unique(np.column_stack(columns), axis=0, return_inverse=True)
    sums = np.bincount(inverse.ravel(), weighed.share[weighed.stack[places]], len(paths))
    names = [".".join(weighed.names[code] for code in path if code >= 0) for path in paths]
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


# ---- stacks as text ----


def folded(profile: Profile, event: str | None = None) -> pd.Series[int]:
    """Return folded stacks: ``comm;outermost;...;innermost``, and the sum of their periods.

    As stackcollapse makes them; inlined functions are among them, and a ``;`` in a name is ``:``.
    """
    chosen = select(profile, event).samples
    keys = ["comm", "stack"]
    sums = chosen.groupby(keys, observed=True, dropna=False)["period"].sum().reset_index()
    symbols = [symbol.replace(";", ":") for symbol in profile.frames["symbol"]]
    # Stored from the innermost outwards: all of it backwards, once.
    ids, total = profile.frame_ids[::-1].tolist(), len(profile.frame_ids)
    starts = (total - profile.offsets[1:]).tolist()
    ends = (total - profile.offsets[:-1]).tolist()
    names = []
    known: dict[object, str] = {}
    for comm, stack in zip(sums["comm"].astype(object), sums["stack"].tolist(), strict=True):
        if comm not in known:
            known[comm] = shown(comm) if isinstance(comm, str) else "[unknown]"
        path = map(symbols.__getitem__, ids[starts[stack] : ends[stack]])
        names.append(";".join((known[comm], *path)))
    folded_ = sums["period"].set_axis(pd.Index(names, name="stack"))
    return folded_.groupby(level=0, sort=True).sum()


def shown(comm: str) -> str:
    """Return a name of a thread fit for one line of text between semicolons."""
    return printable(comm).replace(";", ":")


# ---- what it is for ----

PARTS: Mapping[str, str] = {
    "page fault: waiting for mmap_lock": "spinning for it; sleeping is no processor time",
    "page fault: taking mmap_lock": "and finding the VMA under it, and letting it go",
    "page fault: finding and locking the VMA": "lock_vma_under_rcu(): without mmap_lock",
    "page fault: the rest": "entering, handling, clearing pages, charging, mapping",
    "mapping: waiting for mmap_lock": "mmap(), munmap(), mprotect(), brk() and their like",
    "mapping: the rest": "likewise",
    "kernel: the rest": "exec, exit, scheduling, interrupts, other system calls",
    "user mode": "the program itself and its libraries",
}
"""What time is for; each sample is of one of them."""

# Functions of mm/memory.c, mm/mmap.c, kernel/locking/rwsem.c and arch/*/mm/fault.c, by any name
# that they had since 6.1.
_FAULT = re.compile(
    r"(asm_)?exc_page_fault|do_user_addr_fault|do_page_fault|do_mem_abort|handle_page_fault"
    r"|handle_mm_fault|__handle_mm_fault"
)
_WAIT = re.compile(
    r"rwsem_(down|optimistic|spin)\w*|rwsem_mark_wake|osq_lock|mutex_optimistic_spin"
)
_TAKE = re.compile(
    r"lock_mm_and_find_vma|get_mmap_lock_carefully|mmap_(read|write)_(try)?(lock|unlock)\w*"
    r"|(down|up)_(read|write)\w*|__(down|up)_(read|write)\w*|rwsem_wake\w*"
)
_LOOK = re.compile(r"lock_vma_under_rcu|vma_start_read\w*|vma_(end_read|refcount_put)\w*")
_MAP = re.compile(
    r"(__(x64|arm64|riscv)_sys_|ksys_|do_|vm_|__vm_)(mmap|munmap|mprotect|mremap|madvise|brk)\w*"
)


def waits(symbol: str) -> bool:
    """Tell whether a function of the kernel waits for a lock that sleeps, such as mmap_lock."""
    return bool(_WAIT.fullmatch(symbol))


def parts(profile: Profile, event: str | None = None) -> pd.Series[float]:
    """Return the percentage of each of `PARTS`, in their order."""
    weighed = _Weighed(profile, event)
    count = len(profile.offsets) - 1

    def has(pattern: re.Pattern[str]) -> npt.NDArray[np.bool_]:
        matching = np.array([bool(pattern.fullmatch(name)) for name in weighed.names], bool)
        found = np.zeros(count, bool)
        found[weighed.stack[matching[weighed.symbol]]] = True
        return found

    in_kernel = np.zeros(count, bool)
    kernel = profile.frames["kernel"].to_numpy(bool)
    in_kernel[weighed.stack[kernel[profile.frame_ids.astype(np.int64)]]] = True
    fault, wait, take, look, mapping = map(has, (_FAULT, _WAIT, _TAKE, _LOOK, _MAP))
    conditions = [
        fault & wait,
        fault & look,
        fault & take,
        fault,
        mapping & wait,
        mapping,
        in_kernel,
    ]
    order = list(PARTS)
    order[1], order[2] = order[2], order[1]  # vma_end_read() may let a reference count go
    which = np.select(conditions, np.arange(len(conditions)), len(conditions))
    sums = np.bincount(which, weighed.share, len(order))
    found = pd.Series(sums, index=pd.Index(order, name="part"), name="percent")
    return found.reindex(list(PARTS))


_PART_COLOURS = (
    "#d55e00",
    "#e69f00",
    "#009e73",
    "#a6d8c8",
    "#b35806",
    "#f0b76e",
    "#999999",
    "#8cc8ee",
)


def plot_parts(of: Mapping[str, Run | Sequence[Run]], ax: Axes | None = None) -> Axes:
    """Draw `parts`, a bar for each name."""
    import matplotlib.pyplot as plt

    table = pd.DataFrame({name: mean(each, parts)["mean"] for name, each in of.items()})
    if ax is None:
        _, ax = plt.subplots(figsize=(9, 1.2 + 0.6 * len(of)), layout="constrained")
    left = np.zeros(len(of))
    for (part, values), colour in zip(table.iterrows(), _PART_COLOURS, strict=True):
        bars = ax.barh(list(table.columns), values, left=left, color=colour, label=str(part))
        ax.bar_label(
            bars, [f"{v:.1f}" if v >= 3 else "" for v in values], label_type="center", fontsize=8
        )
        left += values.to_numpy()
    ax.invert_yaxis()
    ax.set(xlabel="percent of the sampled time", xlim=(0, 100))
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.3))
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def fault_callers(profile: Profile, event: str | None = None, most: int = 12) -> pd.DataFrame:
    """Return the paths below the fault handler that most samples are in.

    Returns
    -------
    DataFrame
        path (from handler to innermost, kernel functions only), waiting (for mmap_lock), percent.
    """
    weighed = _Weighed(profile, event)
    kernel = profile.frames["kernel"].to_numpy(bool)
    found: dict[tuple[str, ...], float] = {}
    for stack in np.flatnonzero(weighed.share > 0):
        ids = profile.frame_ids[profile.offsets[stack] : profile.offsets[stack + 1]]
        names = [
            weighed.names[weighed.symbol[profile.offsets[stack] + place]]
            for place, frame in enumerate(ids)
            if kernel[frame]
        ][::-1]
        handler = next((i for i, name in enumerate(names) if _FAULT.fullmatch(name)), None)
        if handler is not None:
            path = tuple(names[handler:])
            found[path] = found.get(path, 0.0) + float(weighed.share[stack])
    table = pd.DataFrame(
        [
            {
                "path": " > ".join(path),
                "waiting": any(_WAIT.fullmatch(name) for name in path),
                "percent": share,
            }
            for path, share in found.items()
        ],
        columns=["path", "waiting", "percent"],
    )
    return table.sort_values("percent", ascending=False, ignore_index=True).head(most)


def by_vma_class(run: Run) -> pd.DataFrame:
    """Return what share of the time went to faults, by what the faulting VMA was before.

    A sample of a clock does not know the address that faulted. So two observations of the same
    workload are put together: the profile says what share of the time was spent in page faults, and
    the tracer, in another execution, what each fault found. Where the tracer timed each fault, the
    share is divided as these times are, else by their number, as if each took as long as another;
    ``basis`` says which. It is an estimate: faults that wait asleep weigh more in times than in a
    profile, and a fault under mmap_lock takes longer than one that is not.

    Returns
    -------
    DataFrame
        before (state of the VMA, see `anonvma.run.vocabulary.STATES`), faults (mean number a
        repeat), of_faults (percent, of their time or number), basis, n (repeats), of_time (percent
        of all sampled time, mean), sd (sample standard deviation, over the repeats). No rows where
        no fault was traced.

    Raises
    ------
    RunError
        When the run lacks samples.
    """
    profiles = of_run(run)
    columns = ["before", "faults", "of_faults", "basis", "n", "of_time", "sd"]
    if "faults" not in run.manifest.tables:
        return pd.DataFrame(columns=columns)
    traced = run.table("faults")
    traced = traced[traced["result"] != "error"]
    if not len(traced):
        return pd.DataFrame(columns=columns)
    timed = bool(traced["time_ns"].notna().all())
    weight = "time_ns" if timed else "count"
    share = traced.pivot_table(
        index="repeat", columns="before", values=weight, aggfunc="sum", observed=True, fill_value=0
    ).astype("float64")
    portion = share.div(share.sum(axis=1), axis=0)
    number = traced.groupby("before", observed=True)["count"].sum() / traced["repeat"].nunique()
    in_faults = pd.Series(
        {
            repeat: parts(profile).filter(like="page fault").sum()
            for repeat, profile in profiles.items()
        }
    )
    # The tracer's repeats and the profile's are different executions: paired by number.
    of_time = portion.reindex(in_faults.index).ffill().bfill().mul(in_faults, axis=0)
    table = pd.DataFrame(
        {
            "faults": number,
            "of_faults": 100 * portion.mean(),
            "basis": "time" if timed else "number",
            "n": len(in_faults),
            "of_time": of_time.mean(),
            "sd": of_time.std(),
        }
    )
    return table.sort_values("of_time", ascending=False).rename_axis("before").reset_index()


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


def tables(
    of: Mapping[str, Run | Sequence[Run]], event: str | None = None, most: int = 15
) -> dict[str, pd.DataFrame]:
    """Return by title the tables that say where the time of a run went, or of two runs.

    Parameters
    ----------
    of : mapping
        By name, one run, or several of the same kind; or two of these, of which the second is what
        the first is compared with.
    event : str, optional
    most : int
        Rows of each table.
    """
    kinds: dict[str, tuple[str, Kind]] = {
        "By purpose": ("part", parts),
        "By function, itself": ("symbol", self_),
        "By function and what it calls": ("symbol", children),
        "By call path": ("path", calltrace),
    }
    found = {}
    for title, (row, kind) in kinds.items():
        each = {name: mean(run, kind, event) for name, run in of.items()}
        table = next(iter(each.values()))
        if len(each) > 1:
            this, base = each.values()
            columns = {"base": base["mean"], "base_sd": base["sd"], "mean": this["mean"]}
            table = pd.DataFrame(columns | {"sd": this["sd"]})
            # What is in none of a run's repeats is 0 in each of them.
            for value, sd in (("base", "base_sd"), ("mean", "sd")):
                lacking = table[value].isna()
                table.loc[lacking, [value, sd]] = 0.0
            table["points"] = table["mean"] - table["base"]
            order = table["points"].abs()
        else:
            order = table["mean"]
        if kind is not parts:
            table = table.loc[order.sort_values(ascending=False, kind="stable").index].head(most)
        found[title] = table.rename_axis(row).reset_index()
    return found


def sentences(run: Run) -> list[str]:
    """Say where the time went, in a few sentences; nothing where it was not sampled."""
    if "samples" not in run.manifest.tables:
        return []
    profiles = of_run(run)
    table = pd.DataFrame({repeat: parts(profile) for repeat, profile in profiles.items()})
    mean = table.mean(axis=1)
    first = next(iter(profiles.values()))
    count = sum(len(select(profile).samples) for profile in profiles.values())
    faults = mean.filter(like="page fault").sum()
    waiting = mean.filter(like="waiting").sum()
    said = [
        f"Of {count:,} samples of {main_event(first)} in {len(profiles)} execution"
        f"{'s' if len(profiles) > 1 else ''}, {percent(faults / 100)} were in page faults and "
        f"{percent(waiting / 100)} spinning for mmap_lock."
    ]
    if "faults" in run.manifest.tables:
        classes = by_vma_class(run).set_index("before")
        if "bare" in classes.index:
            bare = classes.loc["bare"]
            said.append(
                f"Faults on bare VMAs are {percent(bare['of_faults'] / 100)} of the faults by "
                f"{bare['basis']}, and so an estimated {percent(bare['of_time'] / 100)} of the "
                "time."
            )
    return said
