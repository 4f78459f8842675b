# SPDX-License-Identifier: GPL-2.0-only
"""What the BPF programs rely on, against the types of many kernels, without booting one.

libbpf relocates every program of the probe against the type information that it is given
(VMAPROBE_BTF) before it loads one, and says of each member where it found it. So btf.tar.xz,
cut from Debian's images by helpers/btf.py, shows of each kernel what is not there; and this
kernel's own types with one name changed show what the probe says of a kernel that lacks it.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import btf
import pytest

pytestmark = pytest.mark.usefixtures("build")

OBSERVERS = {
    "census": ["census", "--pid", str(os.getpid()), "--output", "{}"],
    "locks": ["locks", "--output", "{}", "--", "true"],
    "time": ["time", "--output", "{}", "--", "true"],
    "faults by tracepoints": ["faults", "--source", "tracepoint", "--output", "{}", "--", "true"],
    # Those of fentry have the same body.
    "faults by kprobe": ["faults", "--source", "kprobe", "--output", "{}", "--", "true"],
}

# What a kernel may lack, since a program asks before it looks: the releases that have it, from the
# first to the one that no longer has it, or None where it is for the configuration to say.
OPTIONAL: dict[str, tuple[tuple[int, int], tuple[int, int]] | None] = {
    "struct mm_struct___int.mm_lock_seq": ((6, 4), (6, 12)),
    "struct mm_struct___seqcount.mm_lock_seq.sequence": ((6, 12), (99, 0)),  # 6.12.y has it, too
    "struct vm_area_struct___flag.detached": ((6, 4), (6, 15)),
    "struct vm_area_struct___count.vm_refcnt.refs.counter": ((6, 15), (99, 0)),
    "enum fault_flag::FAULT_FLAG_VMA_LOCK": ((6, 4), (99, 0)),
    "struct vm_area_struct.anon_name": None,  # CONFIG_ANON_VMA_NAME
    "struct anon_vma_name.name[0]": None,
    "struct vm_area_struct.shared": None,  # whether it is one union with anon_name, before 6.2
    "struct mm_struct.context.ctx_id": None,  # x86
    # Of programs of type "tp", which serve from 7.0 on; others serve where they do not load.
    "struct trace_event_raw_sched_process_fork.child_pid": None,
    "struct trace_event_raw_sys_enter.id": None,
    "struct trace_event_raw_contention_begin.lock_addr": None,
    "struct trace_event_raw_contention_begin.flags": None,
    "struct trace_event_raw_contention_end.lock_addr": None,
    "struct trace_event_raw_contention_end.ret": None,
    "struct trace_event_raw_mmap_lock.mm": None,
    "struct trace_event_raw_mmap_lock_acquire_returned.mm": None,
    "struct trace_event_raw_mmap_lock_acquire_returned.write": None,
    "struct trace_event_raw_mmap_lock_acquire_returned.success": None,
    "struct thread_info.status": None,  # x86
    "struct task_struct.thread_info.status": None,
    "struct task_struct.sched_info.run_delay": None,  # CONFIG_SCHED_INFO
    "struct anon_vma.num_children": None,  # LINK_UNKNOWN without, as the next
    "struct anon_vma.num_active_vmas": None,
    "struct vm_area_struct.vm_policy": None,  # CONFIG_NUMA
    "struct vm_area_struct.vm_userfaultfd_ctx.ctx": None,  # CONFIG_USERFAULTFD
    "struct vma_merge_struct.prev": None,  # from 6.12 on
    "struct vm_area_struct___offset.__vm_anon_pgoff_lo": ((7, 3), (99, 0)),
    "struct vm_area_struct___offset.__vm_anon_pgoff_hi": ((7, 3), (99, 0)),
    "struct task_struct.on_cpu": None,  # CONFIG_SMP
    "struct task_struct.wake_cpu": None,
    "struct vm_area_struct___lock.vm_lock": ((6, 4), (6, 15)),
    "struct vma_lock.lock": ((6, 4), (6, 15)),
    "struct vm_area_struct___seq.vm_lock_seq": ((6, 4), (99, 0)),
    "struct pt_regs___x86.orig_ax": None,  # x86
    "struct pt_regs___x86.cs": None,
    "struct pt_regs___entry.syscallno": None,  # arm64
    "struct pt_regs___entry.pstate": None,
    "union thread_union": None,
    "struct task_struct.stack": None,  # looked at with that one
    # What a contended lock may lie in: where it is not found, the lock goes without its name.
    "struct address_space.i_mmap_rwsem": None,
    "struct inode.i_mapping": None,
    "struct inode.i_rwsem": None,
    "struct inode.i_dentry": None,
    "struct inode.i_dentry.first": None,
    "struct dentry.d_alias": ((7, 1), (99, 0)),
    "struct dentry___union.d_u.d_alias": ((6, 0), (7, 1)),
    "struct anon_vma.root": None,
    "struct anon_vma.rwsem": None,
    "struct page.page_type": None,
    "struct page.ptl": ((6, 0), (6, 6)),
    "struct ptdesc.ptl": ((6, 6), (99, 0)),
    "enum pagetype::PGTY_table": ((6, 11), (99, 0)),
    "struct task_struct.stack_vm_area": None,  # CONFIG_VMAP_STACK
    "struct zone.lock": None,
    "struct zone.zone_pgdat": None,
    "struct pglist_data.node_zones": None,
    "struct pglist_data.__lruvec": None,
    "struct lruvec.lru_lock": None,
    "struct lruvec___memcg.pgdat": None,  # CONFIG_MEMCG
    "struct mm_struct.page_table_lock": None,
    "struct sighand_struct.siglock": None,
    "struct pt_regs.orig_ax": None,  # x86: whether a fault is of a system call
}

_RELOCATION = re.compile(
    r"prog '(\w+)': relo #(\d+): (?:<\w+> \[\d+\] (.+?)(?: \(\d| = |\n|$)|(substituting insn))"
)


class Relocated(NamedTuple):
    """What the programs of an observer rely on, and what of it was not found."""

    names: set[str]
    missing: set[str]
    code: int
    said: str


def relocate(probe: Path, observer: str, types: bytes, place: Path) -> Relocated:
    """Relocate the programs of an observer against these types, and try to load them here."""
    file = place / "types.btf"
    file.write_bytes(types)
    words = [word.format(place / "out") for word in OBSERVERS[observer]]
    env = {**os.environ, "VMAPROBE_BTF": str(file), "VMAPROBE_DEBUG": "1"}
    done = subprocess.run(
        [probe, *words], env=env, capture_output=True, text=True, errors="replace", timeout=300
    )
    names: dict[tuple[str, str], str] = {}
    missing = set()
    for program, number, name, invalid in _RELOCATION.findall(done.stderr):
        if invalid:
            missing.add(names[program, number])
        else:
            names.setdefault((program, number), name)
    said = [line for line in done.stderr.splitlines() if line.startswith("vmaprobe: ")]
    return Relocated(set(names.values()), missing, done.returncode, said[-1] if said else "")


@pytest.fixture(scope="module")
def probe(build: Path) -> Path:
    if os.geteuid():
        pytest.skip("libbpf relocates a program only where it may load one: run the tests as root")
    return build / "vmaprobe"


@pytest.fixture(scope="module")
def here() -> bytes:
    """This kernel's types, cut to what is looked into: libbpf reads them again each time."""
    file = Path("/sys/kernel/btf/vmlinux")
    if not file.exists():
        pytest.skip("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF)")
    return btf.write(btf.cut(btf.read(file.read_bytes()), btf.wanted(), renumber=False))


@pytest.mark.parametrize("version", btf.recorded())
def test_every_program_finds_what_it_relies_on(probe: Path, tmp_path: Path, version: str) -> None:
    release = tuple(int(number) for number in version.split("."))
    types = btf.write(btf.recorded()[version])
    for observer in OBSERVERS:
        found = relocate(probe, observer, types, tmp_path)
        assert len(found.names) > 10, found.said
        assert found.missing <= OPTIONAL.keys(), observer
        for name, span in OPTIONAL.items():
            if span is not None and name in found.names:
                has = span[0] <= release < span[1]
                assert (name not in found.missing) == has, (observer, name)


def owner_and_member(name: str) -> tuple[str, str]:
    """Of ``struct mm_struct___int.mm_lock_seq`` the type's name in the kernel and the member's."""
    match = re.fullmatch(r"(?:struct|union|enum)?\s*(\w+?)(?:___\w+)?(?:\.|::)(\w+).*", name)
    assert match, name
    return match[1], match[2]


@pytest.mark.parametrize("observer", ["census", "locks", "time", "faults by tracepoints"])
def test_what_is_missing_is_named_and_never_a_number(
    probe: Path, here: bytes, tmp_path: Path, observer: str
) -> None:
    complete = relocate(probe, observer, here, tmp_path)
    if complete.code:
        pytest.skip(f"{observer} does not run here: {complete.said}")
    optional = {owner_and_member(n) for n in OPTIONAL if "." in n or "::" in n}
    members = {owner_and_member(n) for n in complete.names if "." in n or "::" in n}
    kernel, unnamed = btf.Kernel(here), {}
    for owner, member in sorted(members - optional):
        found = relocate(probe, observer, kernel.without(owner, member), tmp_path)
        named = rf"vmaprobe: this kernel has no \w+ {owner}(___\w+)?(\.|::){member}\b.*"
        if found.code != 4 or not re.fullmatch(named, found.said):
            unnamed[owner, member] = (found.code, found.said)
    assert not unnamed


def test_what_is_read_is_what_is_written() -> None:
    for types in btf.recorded().values():
        assert btf.read(btf.write(types)) == types
