# SPDX-License-Identifier: GPL-2.0-only
"""The records of vmaprobe's files: every member where the probe's own headers put it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from waiting import PATIENCE

from anonvma.probe import census_layout, fault_events

PROBE = Path(__file__).parents[2] / "analysis" / "probe"
LAYOUTS = {
    "census_header": census_layout.HEADER,
    "vma_record": census_layout.RECORD,
    "mm_entry": census_layout.MM,
    "process_entry": census_layout.PROCESS,
    "ops_entry": census_layout.OPS,
    "chain_link": census_layout.LINK,
    "slab_entry": census_layout.SLAB,
    "string_entry": census_layout.STRING,
    "fault_file": fault_events.HEADER,
    "fault_event": fault_events.EVENT,
}


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, tuple[int, int]]]:
    """Offset and size of each member, and of the struct itself under no name, by the compiler."""
    prints = []
    for struct, dtype in LAYOUTS.items():
        prints.append(f'printf("{struct} . 0 %zu\\n", sizeof(struct {struct}));')
        for name in dtype.names or ():
            where = f"offsetof(struct {struct}, {name}), sizeof(((struct {struct} *)0)->{name})"
            prints.append(f'printf("{struct} {name} %zu %zu\\n", {where});')
    lines = ["stddef.h", "stdio.h", "linux/types.h"]
    source = "".join(f"#include <{name}>\n" for name in lines)
    source += '#include "census.h"\n#include "faults.h"\n'
    source += "int main(void)\n{\n\t" + "\n\t".join(prints) + "\n\treturn 0;\n}\n"
    directory = tmp_path_factory.mktemp("layouts")
    (directory / "layouts.c").write_text(source)
    program = directory / "layouts"
    # Not -I: our features.h is not what <features.h> means.
    words = ["cc", "-iquote", str(PROBE), "-o", str(program), str(directory / "layouts.c")]
    subprocess.run(words, check=True, timeout=PATIENCE)
    done = subprocess.run([program], check=True, capture_output=True, text=True, timeout=PATIENCE)
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for line in done.stdout.splitlines():
        struct, name, offset, size = line.split()
        found.setdefault(struct, {})[name] = int(offset), int(size)
    return found


@pytest.mark.parametrize("struct", LAYOUTS)
def test_every_member_lies_where_the_compiler_puts_it(
    struct: str, members: dict[str, dict[str, tuple[int, int]]]
) -> None:
    dtype = LAYOUTS[struct]
    assert dtype.fields is not None
    ours = {name: (offset, kind.itemsize) for name, (kind, offset) in dtype.fields.items()}
    assert {".": (0, dtype.itemsize), **ours} == members[struct]
    # No member is left out: what lies between two of them would be one that nobody reads.
    assert sum(size for _, size in ours.values()) == dtype.itemsize


def test_two_members_that_swap_places_are_noticed(
    members: dict[str, dict[str, tuple[int, int]]],
) -> None:
    names = list(fault_events.EVENT.names or ())
    names[0], names[1] = names[1], names[0]
    swapped = np.dtype([(name, fault_events.EVENT[name]) for name in names])
    assert swapped.fields is not None and swapped.itemsize == fault_events.EVENT.itemsize
    assert swapped.fields["address"][1] != members["fault_event"]["address"][0]
