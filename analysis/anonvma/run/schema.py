# SPDX-License-Identifier: GPL-2.0-only
"""The schema of every table that a run may have: its columns, their types, units and meaning.

The data dictionary (data/README.md) is printed from here. A column that came after the first
format of a run is marked `later`: older runs lack it, and it is null in those.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from anonvma.run import vocabulary

_WORD = pa.dictionary(pa.int8(), pa.string())
_TEXT = pa.dictionary(pa.int32(), pa.string())
_BUCKETS = pa.list_(pa.uint32())


def field(
    name: str, kind: pa.DataType, unit: str, description: str, *, later: bool = False
) -> pa.Field:
    """Return a column of a declared schema, with what the data dictionary says of it.

    One that came `later` runs may lack: it is null in those, which do not tell.
    """
    about = {"unit": unit, "description": description, **({"later": "yes"} if later else {})}
    return pa.field(name, kind, metadata=about)


def _of(kind: pa.DataType, unit: str = "") -> Callable[..., pa.Field]:
    """Return what declares columns of one kind."""
    return lambda name, description, **later: field(name, kind, unit, description, **later)


_count, _string, _seconds = _of(pa.int64()), _of(pa.string()), _of(pa.float64(), "s")
_choice, _name = _of(_WORD), _of(_TEXT)

_REPEAT = field("repeat", pa.int32(), "", "which repeat of the run, from 1")


def _table(description: str, *fields: pa.Field) -> pa.Schema:
    return pa.schema([_REPEAT, *fields], metadata={"description": description})


_WHO = [
    field("process", pa.uint32(), "id", "program in a process, numbered as they came"),
    field("tgid", pa.uint32(), "pid", "its process"),
    _name("comm", "its name when it began"),
]
_WHAT = [
    _name("origin", "how the VMA came to be, null where there was none"),
    _choice("mode", "user, kernel (copying to or from it) or gup (get_user_pages())"),
    _choice("access", "read, write or exec"),
    _choice("before", "what the VMA was: " + ", ".join(vocabulary.STATES)),
    _choice("after", "what it was when the fault was over"),
    _choice("path", "vma (its own lock), mmap (mmap_lock), retry (first one, then both), unknown"),
    _choice("result", "minor, major or error: it ended in a signal or was refused"),
    _choice(
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
    "repeats": _table(
        "One row per repeat: when it ran, how long, and what it used.",
        field("started", pa.timestamp("us", tz="UTC"), "", "when the workload was started"),
        _seconds(
            "seconds", "wall time from its start until it was done: holding its mappings, or ended"
        ),
        field("exit_status", pa.int32(), "", "null for a process that was only watched"),
        _seconds("user_s", "processor time in user mode, null if unknown"),
        _seconds("system_s", "processor time in the kernel, null if unknown"),
        _count("voluntary_ctxt", "times its threads gave up the processor, null if unknown"),
        _count("involuntary_ctxt", "times the processor was taken from them, null if unknown"),
        _count("minor_faults", "page faults that needed no disk, null if unknown"),
        _count("major_faults", "page faults that did, null if unknown"),
    ),
    "throughput": _table(
        "One row per task of the workload: the line that usemem and vmload print.",
        field("task", pa.int32(), "", "in the order printed, from 0"),
        field("bytes", pa.int64(), "bytes", "accessed, and 1/8 of the size for each mmap"),
        field("usecs", pa.int64(), "us", "from before the tasks were started"),
        field("kb_per_s", pa.int64(), "KiB/s", "bytes / 1024 / usecs * 1e6"),
    ),
    "perf_stat": _table(
        "One row per event that perf stat was asked to count.",
        _string("event", "perf's name of it"),
        field("value", pa.float64(), "column unit", "null where there is no count"),
        _string("unit", "of the value; empty for a plain number"),
        field(
            "running_share",
            pa.float64(),
            "",
            "share of the time that it was counted, below 1 when multiplexed",
        ),
        field("supported", pa.bool_(), "", "whether this machine can count it"),
    ),
    "specimens": _table(
        "One row per specimen: a mapping made and touched in one way, as its maker tells it.",
        _string("kind", "what kind of mapping"),
        _string("touch", "untouched, read, written, or read-written"),
        field("pid", pa.uint32(), "pid", "process it is in; null when missing"),
        field("start", pa.uint64(), "address", "of what was touched; null when missing"),
        field("end", pa.uint64(), "address", "first byte after it; null when missing"),
        _string("made_by", "the call that made it"),
        _string("explain", "what in the kernel decides about its anon_vma"),
        _string("origin_note", "how the mapping came to be"),
        _string("missing", "why it could not be made, else null"),
    ),
    "lock_cost": _table(
        "One row per execution of a workload under one of two locks, in turns by blocks (repeat).",
        field("threads", pa.int32(), "", "tasks of the workload"),
        _string("way", "who touched each page first: user or kernel"),
        field("bytes", pa.int64(), "bytes", "mapped, over all tasks"),
        field("mib_per_s", pa.float64(), "MiB/s", "throughput, summed over the tasks"),
        _seconds("seconds", "wall time, with starting and ending"),
        _seconds("user_s", "processor time in user mode"),
        _seconds("system_s", "processor time in the kernel"),
        _count("minor_faults", "page faults that needed no disk"),
        _count("major_faults", "page faults that did"),
        _count("voluntary_ctxt", "times its threads gave up the processor"),
        _count("involuntary_ctxt", "times it was taken from them"),
    ),
    "lock_waits": _table(
        "One row per caller of mmap_lock in one traced execution, of those in lock_cost's ways.",
        field("threads", pa.int32(), "", "tasks of the workload"),
        _string("way", "who touched each page first: user or kernel"),
        _string("caller", "what the lock was acquired for"),
        _string("mode", "read or write"),
        field("acquisitions", pa.float64(), "", "how often"),
        field("contended", pa.float64(), "", "how many of these had to wait"),
        field("wait_ms", pa.float64(), "ms", "from asking to having it, summed"),
        field("mean_ns", pa.float64(), "ns", "the same, of one acquisition"),
        field("longest_ns", pa.int64(), "ns", "the longest of them"),
        _count("lost", "events that the tracer lost in this execution"),
    ),
    "census": _table(
        "One row per VMA, as the census found it.",
        field("mm", pa.uint32(), "id", "the mm_struct, numbered within this census"),
        field("tgid", pa.uint32(), "pid", "process through which the mm was read"),
        field("tid", pa.uint32(), "pid", "thread through which it was read"),
        _name("comm", "name of the thread group's leader"),
        field("start", pa.uint64(), "address", "vm_start"),
        field("end", pa.uint64(), "address", "vm_end, first byte after it"),
        field("bytes", pa.uint64(), "bytes", "end - start"),
        field("flags", pa.uint64(), "bits", "vm_flags"),
        _name("prot", "rwx and s(hared) or p(rivate), as /proc/PID/maps has it"),
        field("anonymous", pa.bool_(), "", "vm_ops == NULL"),
        field("vm_ops", _TEXT, "symbol", "what identifies vm_ops, null when vm_ops is NULL"),
        field("anon_vma", pa.bool_(), "", "anon_vma != NULL"),
        field("bare", pa.bool_(), "", "anonymous and without anon_vma"),
        _name("class", "why it is bare: " + ", ".join(vocabulary.CLASSES) + "; else null"),
        _name("note", "what made the class 'other', else null"),
        _name("origin", "how the mapping came to be"),
        field("device", _TEXT, "major:minor", "of the file, as /proc/PID/maps has it"),
        field("inode", pa.uint64(), "", "of the file, 0 without one"),
        _name("path", "of the file, null without one"),
        field("offset", pa.uint64(), "bytes", "vm_pgoff in bytes"),
        _name("name", "PR_SET_VMA_ANON_NAME, or the special mapping's"),
        field("present", pa.uint64(), "pages", "pages mapped; null unless bare and looked at"),
        field("zero", pa.uint64(), "pages", "of these, the zero page"),
        field("swapped", pa.uint64(), "pages", "pages swapped out"),
        field("huge", pa.uint64(), "pages", "present pages that are part of a huge one"),
        field(
            "guard", pa.uint64(), "pages", "guard markers (MADV_GUARD_INSTALL); null before 6.15"
        ),
        field(
            "apart",
            _WORD,
            "",
            "why it is not one with the VMA right below it: the kernel's first test that fails, of "
            f"{', '.join(dict.fromkeys(vocabulary.APART))}; null where none lies there, or unknown",
            later=True,
        ),
        field("apart_alone", pa.bool_(), "", "whether no other test fails", later=True),
    ),
    "anon_vma_chains": _table(
        "One row per anon_vma_chain in the census: a VMA that an anon_vma may have pages in.",
        field("mm", pa.uint32(), "id", "as in census"),
        field("tgid", pa.uint32(), "pid", "as in census"),
        _name("comm", "as in census"),
        field("start", pa.uint64(), "address", "vm_start, by which census has the VMA"),
        field("anon_vma", pa.uint32(), "id", "the anon_vma, numbered within this census"),
        field("root", pa.uint32(), "id", "the anon_vma at the root of its tree"),
        field("parent", pa.uint32(), "id", "its parent, a root its own"),
        field("own", pa.bool_(), "", "whether it is the VMA's own, vma->anon_vma"),
        _count("num_children", "of the anon_vma; a root counts itself; null if unknown"),
        _count("num_active_vmas", "VMAs whose own it is, by the kernel's count; null likewise"),
    ),
    "slabs": _table(
        "One row per slab cache of theirs: the line of /proc/slabinfo, of the whole machine.",
        _string("cache", "anon_vma or anon_vma_chain"),
        _count("active", "objects in use, or free in a slab of a processor's own"),
        _count("objects", "objects there is room for"),
        field("object_size", pa.int64(), "bytes", "of one, with what lies between two"),
        _count("slabs", "of the cache"),
        field("slab_size", pa.int64(), "bytes", "of one"),
    ),
    "tracing": _table(
        "One row per run of the workload that was timed with a tracer, or without one.",
        _string("traced", "untraced, faults, events (faults, and each as an event), locks or time"),
        _string("source", "of faults: fentry, kprobe or tracepoint"),
        _string("why_not_fentry", "why it was not fentry, which has times"),
        _string(
            "why_not_kprobe",
            "why it was not kprobe, which has times; null if that was not tried, or unknown",
            later=True,
        ),
        field("timed", pa.bool_(), "", "whether each fault has a time"),
        field("lock_paths", pa.bool_(), "", "whether each fault has a lock path"),
        _seconds("seconds", "wall time of the workload"),
        field("kb_per_s", pa.int64(), "KiB/s", "throughput of its tasks, summed; null without"),
        _count("counted", "faults, or acquisitions of mmap_lock, that were counted"),
        _count("used", "faults by getrusage(), while traced; null if unknown"),
        _count("unseen_gup", "faults of get_user_pages(), which have no exception"),
        *(
            _count(
                name,
                f"{what}; null if unknown",
                later=name not in vocabulary.RECORDED_FROM_THE_FIRST,
            )
            for name, what in vocabulary.TRACING_LOSSES.items()
        ),
        _count(
            "refused",
            "exceptions with page faults disabled, which are no faults; null if unknown",
            later=True,
        ),
        _string("preemption", "the kernel's model, in its own word; null if unknown", later=True),
        _string("why_no_lock_paths", "null where they are known", later=True),
        _string("why_no_reasons", "why not each has its reason; null where it has", later=True),
        _string(
            "why_no_witness",
            "why there is no second count of mmap_lock's acquisitions, null where there is",
            later=True,
        ),
    ),
    "faults": _table(
        "One row per group of like page faults of the workload, as traced.",
        *_WHO,
        *_WHAT,
        field("vm_ops", _TEXT, "symbol", "what identifies its vm_ops, null when vm_ops is NULL"),
        _name("file", "last component of its file's name, null without one"),
        _count("count", "how many faults were so"),
        field("time_ns", pa.int64(), "ns", "their times summed; null where the source has none"),
        field("log2_ns", _BUCKETS, "", "how many took 1 ns, 2 to 3, 4 to 7, ...; null likewise"),
        field(
            "wait_ns",
            pa.int64(),
            "ns",
            "of time_ns, from asking for mmap_lock to having it; null likewise",
            later=True,
        ),
    ),
    "fault_events": _table(
        "One row per page fault of the workload, in the first repeat.",
        field("time_ns", pa.int64(), "ns", "when it began, since tracing did"),
        field("address", pa.uint64(), "address", "that was touched"),
        field("vm_start", pa.uint64(), "address", "of its VMA, 0 where there was none"),
        field("duration_ns", pa.uint32(), "ns", "0 where the source has no end of it"),
        field("tid", pa.uint32(), "pid", "the thread"),
        *_WHO,
        *_WHAT,
    ),
    "call_paths": _table(
        "One row per group of like page faults that were reached by the same functions, in a run "
        "of the workload of its own.",
        *_WHO,
        *_WHAT,
        _name(
            "call_path",
            "functions from the outermost to the one that faulted, by semicolons; the kernel's "
            "follow the user's; unknown where there is no name",
        ),
        _count("count", "how many faults were so"),
    ),
    "locks": _table(
        "One row per group of like acquisitions of mmap_lock while the workload ran; process 0 "
        "is whoever is not of the workload.",
        *_WHO,
        _name("asked_by", "who took it, by a function on the kernel's stack"),
        _choice("mode", "read or write"),
        field(
            "waited_for",
            pa.bool_(),
            "",
            "whether it was asked for, be it by trying; false: kept of one held for writing",
        ),
        field("success", pa.bool_(), "", "whether it was got"),
        field("foreign", pa.bool_(), "", "whether it is another process's lock"),
        _count("count", "how often it was so"),
        _count("contended", "of these, how often it was found taken"),
        field("wait_ns", pa.int64(), "ns", "from asking to the answer, summed"),
        field("longest_ns", pa.int64(), "ns", "the longest of these"),
        field("log2_ns", _BUCKETS, "", "how many waited 1 ns, 2 to 3, 4 to 7, ..."),
    ),
    "time": _table(
        "One row per state that tasks of the workload were in, and for how long, in an execution "
        "traced for this alone.",
        _choice("context", "what the tasks were about: " + ", ".join(vocabulary.CONTEXTS)),
        _choice("lock", "their part in mmap_lock: none, waiting, reading or writing"),
        _choice(
            "cpu",
            "running, sleeping, woken (waiting for a CPU after that), preempted (another has it); "
            "behind others: while that CPU ran tasks that are not of the workload",
        ),
        field("ns", pa.int64(), "ns", "so long, summed over the tasks"),
    ),
    "time_totals": _table(
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
        *(_count(name, what) for name, what in _TIME_COUNTS.items()),
        *(field(name, pa.int64(), "ns", what) for name, what in _TIME_SUMS.items()),
    ),
    "environment": _table(
        "One row per fact of the machine around a repeat: load, frequency, settings.",
        _string("moment", "before or after the repeat; during: the difference"),
        _string("fact", "of the machine; host.* is of the one that emulates it"),
        field("number", pa.float64(), "in its name", "null for a word"),
        _string("word", "null for a number; command line and config as hashes"),
    ),
    "perf_intervals": _table(
        "One row per event and interval, of an execution that perf stat looked at every so often.",
        _seconds("seconds", "when the interval ended, since the start"),
        _string("event", "perf's name of it"),
        field("value", pa.float64(), "column unit", "in the interval; null where there is none"),
        _string("unit", "of the value; empty for a plain number"),
        field(
            "running_share",
            pa.float64(),
            "",
            "share of the interval that it was counted, below 1 when multiplexed",
        ),
        field("supported", pa.bool_(), "", "whether this machine can count it"),
    ),
    "samples": _table(
        "One row per sample that perf record took.",
        field("time_ns", pa.int64(), "ns", "when, since the first sample of the repeat"),
        field("cpu", pa.int32(), "", "processor it was on, null if unknown"),
        field("pid", pa.int32(), "pid", "process; -1 for one that was gone"),
        field("tid", pa.int32(), "pid", "thread"),
        _name("comm", "name that the thread had then"),
        _name("event", "what was sampled, as perf calls it"),
        field("period", pa.int64(), "of the event", "how much of the event it stands for"),
        field("stack", pa.uint32(), "id", "row of stacks, of the same repeat"),
    ),
    "stacks": _table(
        "One row per stack of functions that samples have, whatever the addresses in them.",
        field("stack", pa.uint32(), "id", "numbered within the repeat, from 0"),
        field("frames", pa.list_(pa.uint32()), "id", "rows of frames, the innermost first"),
    ),
    "frames": _table(
        "One row per function in such stacks.",
        field("frame", pa.uint32(), "id", "numbered within the repeat, from 0"),
        field("symbol", pa.string(), "symbol", "demangled; [unknown] where there is none"),
        _name("file", "last component of the program's or library's name"),
        field("kernel", pa.bool_(), "", "whether it ran in kernel mode"),
        field("inlined", pa.bool_(), "", "whether it has no frame of its own"),
    ),
    "vmstat": _table(
        "One row per counter of /proc/vmstat that changed, of the whole machine.",
        _string("counter", "the kernel's name of it; nr_* are levels, not counts"),
        _count("before", "right before the workload was started"),
        _count("after", "when it was done: holding its mappings, or ended"),
        _count("difference", "after - before"),
    ),
}
"""By the name of the table."""


def columns(name: str) -> list[str]:
    """Return the names of a table's columns that follow ``repeat``."""
    return [column for column in SCHEMAS[name].names if column != "repeat"]
