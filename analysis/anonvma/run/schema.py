# SPDX-License-Identifier: GPL-2.0-only
"""The schema of every table that a run may have: its columns, their types, units and meaning.

The data dictionary (data/README.md) is printed from here. A column that came after the first
format of a run is marked `later`: older runs lack it, and it is null in those.
"""

from __future__ import annotations

import pyarrow as pa

from anonvma.run import vocabulary
from anonvma.run.fields import (
    BUCKETS,
    TEXT,
    WHO,
    choice,
    count,
    field,
    seconds,
    string,
    table,
    text,
)
from anonvma.run.lock_schema import LOCK_SCHEMAS
from anonvma.run.vma_schema import VMA_SCHEMAS

_WHAT = [
    text("origin", "how the VMA came to be, null where there was none"),
    choice("mode", "user, kernel (copying to or from it) or gup (get_user_pages())"),
    choice("access", "read, write or exec"),
    choice("before", "what the VMA was: " + ", ".join(vocabulary.STATES)),
    choice("after", "what it was when the fault was over"),
    choice("path", "vma (its own lock), mmap (mmap_lock), retry (first one, then both), unknown"),
    choice("result", "minor, major or error: it ended in a signal or was refused"),
    choice(
        "reason",
        f"why it acquired mmap_lock: {', '.join(vocabulary.REASONS)}; null where it did not",
        later=True,
    ),
]
_TIME_COUNTS = {
    "tasks": "threads of the workload that are summed up",
    "mmaps": "calls of mmap()",
    "munmaps": "calls of munmap()",
    "faults_begun": "page faults that were seen to begin; those of get_user_pages() are not",
    "faults_ended": "of these, seen to be handled",
    "faults_charged": "page faults by the tasks' own counts, with those of get_user_pages()",
    "voluntary_ctxt": "times the tasks gave up their CPU, by their own counts",
    "involuntary_ctxt": "times it was taken from them",
}
_TIME_SUMS = {
    "before_ns": "from the start of the workload's clock until its tasks began to work, summed",
    "tracer_ns": "in the tracer's own programs, which is in no row of time",
    "window_ns": "wall time of what is summed up",
    "ran_ns": "with a CPU from beginning to end, outside the marks too: what exec_ns witnesses",
    "exec_ns": "the same by the scheduler (se.sum_exec_runtime)",
    "queued_ns": "waiting for a CPU from beginning to end",
    "run_delay_ns": "the same by the scheduler (sched_info.run_delay); null where it keeps none",
    "user_ns": "in user mode, by the kernel's own account (utime), often by ticks",
    "system_ns": "in the kernel, by the same account",
    "cpu_traced_ns": "that the machine's CPUs ran tasks of the workload, or of what started it",
    "cpu_others_ns": "that they ran other tasks",
    "cpu_idle_ns": "that they ran none",
}

SCHEMAS: dict[str, pa.Schema] = {
    **VMA_SCHEMAS,
    **LOCK_SCHEMAS,
    "repeats": table(
        "One row per repeat: when it ran, how long, and what it used.",
        field("started", pa.timestamp("us", tz="UTC"), "", "when the workload was started"),
        seconds(
            "seconds", "wall time from its start until it was done: holding its mappings, or ended"
        ),
        field("exit_status", pa.int32(), "", "null for a process that was only watched"),
        seconds("user_s", "processor time in user mode, null if unknown"),
        seconds("system_s", "processor time in the kernel, null if unknown"),
        count("voluntary_ctxt", "times its threads gave up the processor, null if unknown"),
        count("involuntary_ctxt", "times the processor was taken from them, null if unknown"),
        count("minor_faults", "page faults that needed no disk, null if unknown"),
        count("major_faults", "page faults that did, null if unknown"),
    ),
    "throughput": table(
        "One row per task of the workload: the line that usemem and vmload print.",
        field("task", pa.int32(), "", "in the order printed, from 0"),
        field("bytes", pa.int64(), "bytes", "accessed, and 1/8 of the size for each mmap"),
        field("usecs", pa.int64(), "us", "from before the tasks were started"),
        field("kb_per_s", pa.int64(), "KiB/s", "bytes / 1024 / usecs * 1e6"),
    ),
    "perf_stat": table(
        "One row per event that perf stat was asked to count.",
        string("event", "perf's name of it"),
        field("value", pa.float64(), "column unit", "null where there is no count"),
        string("unit", "of the value; empty for a plain number"),
        field(
            "running_share",
            pa.float64(),
            "",
            "share of the time that it was counted, below 1 when multiplexed",
        ),
        field("supported", pa.bool_(), "", "whether this machine can count it"),
    ),
    "lock_cost": table(
        "One row per execution of a workload under one of two locks, in turns by blocks (repeat).",
        field("threads", pa.int32(), "", "tasks of the workload"),
        string("way", "who touched each page first: user or kernel"),
        field("bytes", pa.int64(), "bytes", "mapped, over all tasks"),
        field("mib_per_s", pa.float64(), "MiB/s", "throughput, summed over the tasks"),
        seconds("seconds", "wall time, with starting and ending"),
        seconds("user_s", "processor time in user mode"),
        seconds("system_s", "processor time in the kernel"),
        count("minor_faults", "page faults that needed no disk"),
        count("major_faults", "page faults that did"),
        count("voluntary_ctxt", "times its threads gave up the processor"),
        count("involuntary_ctxt", "times it was taken from them"),
    ),
    "lock_waits": table(
        "One row per caller of mmap_lock in one traced execution, of those in lock_cost's ways.",
        field("threads", pa.int32(), "", "tasks of the workload"),
        string("way", "who touched each page first: user or kernel"),
        string("caller", "what the lock was acquired for"),
        string("mode", "read or write"),
        field("acquisitions", pa.float64(), "", "how often"),
        field("contended", pa.float64(), "", "how many of these had to wait"),
        field("wait_ms", pa.float64(), "ms", "from asking to having it, summed"),
        field("mean_ns", pa.float64(), "ns", "the same, of one acquisition"),
        field("longest_ns", pa.int64(), "ns", "the longest of them"),
        count("lost", "events that the tracer lost in this execution"),
    ),
    "tracing": table(
        "One row per run of the workload that was timed with a tracer, or without one.",
        string("traced", "untraced, faults, events (faults, and each as an event), locks or time"),
        string("source", "of faults: fentry, kprobe or tracepoint"),
        string("why_not_fentry", "why it was not fentry, which has times"),
        string(
            "why_not_kprobe",
            "why it was not kprobe, which has times; null if that was not tried, or unknown",
            later=True,
        ),
        field("timed", pa.bool_(), "", "whether each fault has a time"),
        field("lock_paths", pa.bool_(), "", "whether each fault has a lock path"),
        seconds("seconds", "wall time of the workload"),
        field("kb_per_s", pa.int64(), "KiB/s", "throughput of its tasks, summed; null without"),
        count("counted", "faults, or acquisitions of mmap_lock, that were counted"),
        count("used", "faults by getrusage(), while traced; null if unknown"),
        count("unseen_gup", "faults of get_user_pages(), which have no exception"),
        *(
            count(
                name,
                f"{what}; null if unknown",
                later=name not in vocabulary.RECORDED_FROM_THE_FIRST,
            )
            for name, what in vocabulary.TRACING_LOSSES.items()
        ),
        count(
            "refused",
            "exceptions with page faults disabled, which are no faults; null if unknown",
            later=True,
        ),
        string("preemption", "the kernel's model, in its own word; null if unknown", later=True),
        string("why_no_lock_paths", "null where they are known", later=True),
        string("why_no_reasons", "why not each has its reason; null where it has", later=True),
        string(
            "why_no_witness",
            "why there is no second count of mmap_lock's acquisitions, null where there is",
            later=True,
        ),
    ),
    "faults": table(
        "One row per group of like page faults of the workload, as traced.",
        *WHO,
        *_WHAT,
        field("vm_ops", TEXT, "symbol", "what identifies its vm_ops, null when vm_ops is NULL"),
        text("file", "last component of its file's name, null without one"),
        count("count", "how many faults were so"),
        field("time_ns", pa.int64(), "ns", "their times summed; null where the source has none"),
        field("log2_ns", BUCKETS, "", "how many took 1 ns, 2 to 3, 4 to 7, ...; null likewise"),
        field(
            "wait_ns",
            pa.int64(),
            "ns",
            "of time_ns, from asking for mmap_lock to having it; null likewise",
            later=True,
        ),
    ),
    "fault_events": table(
        "One row per page fault of the workload, in the first repeat.",
        field("time_ns", pa.int64(), "ns", "when it began, since tracing did"),
        field("address", pa.uint64(), "address", "that was touched"),
        field("vm_start", pa.uint64(), "address", "of its VMA, 0 where there was none"),
        field("duration_ns", pa.uint32(), "ns", "0 where the source has no end of it"),
        field("tid", pa.uint32(), "pid", "the thread"),
        *WHO,
        *_WHAT,
    ),
    "call_paths": table(
        "One row per group of like page faults that were reached by the same functions, in a run "
        "of the workload of its own.",
        *WHO,
        *_WHAT,
        text(
            "call_path",
            "functions from the outermost to the one that faulted, by semicolons; the kernel's "
            "follow the user's; unknown where there is no name",
        ),
        count("count", "how many faults were so"),
    ),
    "time": table(
        "One row per state that tasks of the workload were in, and for how long, in an execution "
        "traced for this alone.",
        choice("context", "what the tasks were about: " + ", ".join(vocabulary.CONTEXTS)),
        choice("lock", "their part in mmap_lock: none, waiting, reading or writing"),
        choice(
            "cpu",
            "running, sleeping, woken (waiting for a CPU after that), preempted (another has it); "
            "behind others: while that CPU ran tasks that are not of the workload",
        ),
        field("ns", pa.int64(), "ns", "so long, summed over the tasks"),
    ),
    "time_totals": table(
        "One row per such execution: what the rows of time are of, and what other clocks and "
        "counts tell of the same.",
        field("in_window", pa.bool_(), "", "whether the workload marked what is summed up"),
        field("cpus", pa.int32(), "", "CPUs that were seen to switch tasks"),
        field(
            "clock_ns",
            pa.int64(),
            "ns",
            "time of the tasks by the workload's own clock, summed; null where it prints none",
        ),
        *(count(name, what) for name, what in _TIME_COUNTS.items()),
        *(field(name, pa.int64(), "ns", what) for name, what in _TIME_SUMS.items()),
    ),
    "environment": table(
        "One row per fact of the machine around a repeat: load, frequency, settings.",
        string("moment", "before or after the repeat; during: the difference"),
        string("fact", "of the machine; host.* is of the one that emulates it"),
        field("number", pa.float64(), "in its name", "null for a word"),
        string("word", "null for a number; command line and config as hashes"),
    ),
    "perf_intervals": table(
        "One row per event and interval, of an execution that perf stat looked at every so often.",
        seconds("seconds", "when the interval ended, since the start"),
        string("event", "perf's name of it"),
        field("value", pa.float64(), "column unit", "in the interval; null where there is none"),
        string("unit", "of the value; empty for a plain number"),
        field(
            "running_share",
            pa.float64(),
            "",
            "share of the interval that it was counted, below 1 when multiplexed",
        ),
        field("supported", pa.bool_(), "", "whether this machine can count it"),
    ),
    "samples": table(
        "One row per sample that perf record took.",
        field("time_ns", pa.int64(), "ns", "when, since the first sample of the repeat"),
        field("cpu", pa.int32(), "", "processor it was on, null if unknown"),
        field("pid", pa.int32(), "pid", "process; -1 for one that was gone"),
        field("tid", pa.int32(), "pid", "thread"),
        text("comm", "name that the thread had then"),
        text("event", "what was sampled, as perf calls it"),
        field("period", pa.int64(), "of the event", "how much of the event it stands for"),
        field("stack", pa.uint32(), "id", "row of stacks, of the same repeat"),
    ),
    "stacks": table(
        "One row per stack of functions that samples have, whatever the addresses in them.",
        field("stack", pa.uint32(), "id", "numbered within the repeat, from 0"),
        field("frames", pa.list_(pa.uint32()), "id", "rows of frames, the innermost first"),
    ),
    "frames": table(
        "One row per function in such stacks.",
        field("frame", pa.uint32(), "id", "numbered within the repeat, from 0"),
        field("symbol", pa.string(), "symbol", "demangled; [unknown] where there is none"),
        text("file", "last component of the program's or library's name"),
        field("kernel", pa.bool_(), "", "whether it ran in kernel mode"),
        field("inlined", pa.bool_(), "", "whether it has no frame of its own"),
    ),
    "vmstat": table(
        "One row per counter of /proc/vmstat that changed, of the whole machine.",
        string("counter", "the kernel's name of it; nr_* are levels, not counts"),
        count("before", "right before the workload was started"),
        count("after", "when it was done: holding its mappings, or ended"),
        count("difference", "after - before"),
    ),
}
"""By the name of the table."""


def columns(name: str) -> list[str]:
    """Return the names of a table's columns that follow ``repeat``.

    Examples
    --------
    >>> columns("frames")
    ['frame', 'symbol', 'file', 'kernel', 'inlined']
    """
    return [column for column in SCHEMAS[name].names if column != "repeat"]
