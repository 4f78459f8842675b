# SPDX-License-Identifier: GPL-2.0-only
"""What the time was for: page faults, their locks, mappings, and all else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.perf.profile.shares import Weighed, mean
from anonvma.perf.stacks import Profile
from anonvma.run.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    weighed = Weighed(profile, event)
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
    weighed = Weighed(profile, event)
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
