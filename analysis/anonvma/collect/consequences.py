# SPDX-License-Identifier: GPL-2.0-only
"""What bareness costs beside page faults, tried on the target after the specimens."""

from __future__ import annotations

from anonvma.base.errors import ProbeError
from anonvma.collect.context import Context
from anonvma.probe import consequences_file
from anonvma.probe.vmaprobe import Vmaprobe

_REMEDY = (
    "a kernel with the tracepoint mmap_lock_acquire_returned (CONFIG_TRACING), and no other tracer "
    "of it meanwhile"
)
_LACKING = {
    "swap-out": "swap, such as on a zram device",
    "KSM": "a kernel with CONFIG_KSM, and 1 in /sys/kernel/mm/ksm/run, for all processes",
}
"""What takes more than a kernel that can do it."""


def observe(context: Context, repeat: int) -> None:
    """Do to bare VMAs, and to others, what asks for an anon_vma; keep what came of it."""
    files = {name: context.place(f"{name}-{repeat}") for name in ("consequences", "census-of-them")}
    try:
        # What else runs in a guest is ours; elsewhere it is for its owner to start ksmd.
        guest = context.target.facts()["kind"] == "guest"
        Vmaprobe(context.target).consequences(*files.values(), start_ksmd=guest)
    except ProbeError as error:
        context.results.lacks(
            "what bareness costs beside page faults",
            str(error).rstrip("."),
            "a kernel that can do what the sentence names",
            ["consequences"],
        )
        return
    local = {name: context.writer.path / name for name in files}
    for name, there in files.items():
        context.target.pull(there, local[name])
    rows, uncounted = consequences_file.read(*local.values())
    for file in local.values():
        file.unlink()
    context.results.add("consequences", repeat, rows)
    for what, remedy in _LACKING.items():
        untried = {row["error"] for row in rows if row["operation"] == what and not row["trials"]}
        for why in untried:
            context.results.lacks(f"what {what} does to a bare VMA", f"there is no {why}", remedy)
    if uncounted:
        context.results.lacks("how often each operation acquired mmap_lock", uncounted, _REMEDY)
