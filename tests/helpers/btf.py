# SPDX-License-Identifier: GPL-2.0-only
"""Type information of kernels: read, cut down to what the probe looks into, and altered for tests.

    python tests/helpers/btf.py VERSION=IMAGE...   writes btf.tar.xz anew from these images

What is kept of a kernel are the structures, unions and enumerations of `WANTED` with all their
members, so that another member can be relied upon without a new file; what they embed is kept if
it has no name or is wanted too, and is else an empty structure of its size; what they point to is
void. libbpf, which relocates by names, sees no difference.
"""

from __future__ import annotations

import functools
import io
import lzma
import re
import struct
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = Path(__file__).with_name("btf.tar.xz")

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF = 1, 2, 3, 4, 5, 6, 7, 8
VOLATILE, CONST, RESTRICT, FUNC, PROTO, VAR, DATASEC, FLOAT = 9, 10, 11, 12, 13, 14, 15, 16
DECL_TAG, TYPE_TAG, ENUM64 = 17, 18, 19
_MODIFIERS = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)


class Type(NamedTuple):
    """One type: its kind, kind_flag, size or the type it refers to, and what follows it."""

    name: str
    kind: int
    flag: int
    size: int
    rows: tuple[tuple[int | str, ...], ...] = ()


# What follows a type, by kind: the shape of a row, and whether it begins with a name.
_ROWS = {
    INT: ("<I", False),
    ARRAY: ("<III", False),
    STRUCT: ("<III", True),
    UNION: ("<III", True),
    ENUM: ("<II", True),
    PROTO: ("<II", True),
    VAR: ("<I", False),
    DATASEC: ("<III", False),
    DECL_TAG: ("<I", False),
    ENUM64: ("<III", True),
}
_ONE_ROW = (INT, ARRAY, VAR, DECL_TAG)


def read(raw: bytes) -> list[Type]:
    """Every type, the first of which (void) has the number 0."""
    return [each for each, _ in _walk(raw)]


def _walk(raw: bytes) -> list[tuple[Type, int]]:
    """Every type, and where what follows it begins."""
    magic, _, _, header, types, types_size, strings, _ = struct.unpack_from("<HBBIIIII", raw)
    assert magic == 0xEB9F

    def name(offset: int) -> str:
        start = header + strings + offset
        return raw[start : raw.index(b"\0", start)].decode()

    found, at, end = [(Type("", 0, 0, 0), 0)], header + types, header + types + types_size
    while at < end:
        name_offset, info, size = struct.unpack_from("<III", raw, at)
        at += 12
        kind, count = info >> 24 & 31, info & 0xFFFF
        rows: list[tuple[int | str, ...]] = []
        begin = at
        if kind in _ROWS:
            shape, named = _ROWS[kind]
            for _ in range(1 if kind in _ONE_ROW else count):
                row = struct.unpack_from(shape, raw, at)
                rows.append((name(row[0]), *row[1:]) if named else row)
                at += struct.calcsize(shape)
        found.append((Type(name(name_offset), kind, info >> 31, size, tuple(rows)), begin))
    return found


def write(types: list[Type]) -> bytes:
    """The same as the kernel would have it."""
    strings, offsets, body = bytearray(b"\0"), {"": 0}, bytearray()

    def offset(name: str) -> int:
        if name not in offsets:
            offsets[name] = len(strings)
            strings.extend(name.encode() + b"\0")
        return offsets[name]

    for each in types[1:]:
        count = 0 if each.kind in _ONE_ROW else len(each.rows)
        info = each.flag << 31 | each.kind << 24 | count
        body += struct.pack("<III", offset(each.name), info, each.size)
        for row in each.rows:
            shape, _ = _ROWS[each.kind]
            body += struct.pack(shape, *(offset(v) if isinstance(v, str) else v for v in row))
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings))
    return header + bytes(body) + bytes(strings)


def cut(types: list[Type], wanted: set[str], *, renumber: bool = True) -> list[Type]:
    """The types that are wanted, by name, and what they embed, as the module says.

    A program that names types to the kernel by number, as bpf_rdonly_cast() has it, needs the
    kernel's own numbers: without `renumber` each keeps its own, and the others stand there empty.
    """
    kept, numbers = {0: Type("", 0, 0, 0)}, {0: 0}

    def sized(number: int) -> int:
        each = types[number]
        if each.kind in _MODIFIERS:
            return sized(each.size)
        return 8 if each.kind == PTR else each.size

    def add(number: int, *, whole: bool) -> int:
        if number in numbers:
            return numbers[number]
        each = types[number]
        numbers[number] = place = len(kept) if renumber else number
        kept[place] = each
        if each.kind == PTR:
            each = each._replace(size=0)
        elif each.kind in _MODIFIERS:
            inside = types[each.size].name == "" or each.name in wanted
            each = each._replace(size=add(each.size, whole=whole or inside))
        elif each.kind == ARRAY:
            element, index, count = (int(value) for value in each.rows[0])
            each = each._replace(
                rows=((add(element, whole=False), add(index, whole=False), count),)
            )
        elif each.kind in (STRUCT, UNION):
            keep = whole or each.name in wanted or not each.name
            each = each._replace(
                flag=each.flag if keep else 0,
                rows=tuple((n, add(int(t), whole=False), o) for n, t, o in each.rows)
                if keep
                else (),
            )
        elif each.kind not in (INT, FLOAT, ENUM, ENUM64, FWD):
            each = Type(each.name, FWD, 0, 0)
        kept[place] = each
        return place

    kinds = (STRUCT, UNION, ENUM, ENUM64, TYPEDEF)
    for number, each in enumerate(types):
        if each.name in wanted and each.kind in kinds:
            add(number, whole=True)
    nothing = Type("", FWD, 0, 0)
    return [kept.get(place, nothing) for place in range(max(kept) + 1)]


class Kernel:
    """The types of a kernel, and the same with one name changed: no number of a type moves."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._types = _walk(raw)

    def without(self, owner: str, member: str) -> bytes:
        """A kernel that calls a member of a structure, or a value of an enumeration, otherwise."""
        changed = bytearray(self._raw)
        (length,) = struct.unpack_from("<I", changed, 20)
        struct.pack_into("<I", changed, 20, length + len(b"other\0"))
        for number in self._named(owner):
            each, at = self._types[number]
            size = struct.calcsize(_ROWS[each.kind][0])
            for place, row in enumerate(each.rows):
                if row[0] == member:
                    struct.pack_into("<I", changed, at + place * size, length)
        return bytes(changed) + b"other\0"

    def _named(self, owner: str) -> set[int]:
        kinds = (STRUCT, UNION, ENUM, ENUM64, TYPEDEF)
        found: set[int] = set()
        for number, (each, _) in enumerate(self._types):
            if each.name == owner and each.kind in kinds:
                found |= self._inside(number)
        return found

    def _inside(self, number: int) -> set[int]:
        """A type, behind its typedef, and what it has in it without a name."""
        each, _ = self._types[number]
        if each.kind == TYPEDEF:
            return self._inside(each.size)
        found = {number}
        if each.kind in (STRUCT, UNION):
            for _, inner, _ in each.rows:
                kind, name = self._types[int(inner)][0].kind, self._types[int(inner)][0].name
                if not name and kind in (STRUCT, UNION):
                    found |= self._inside(int(inner))
        return found


def of_image(path: Path) -> bytes:
    """The section .BTF of the kernel inside a bzImage (Documentation/arch/x86/boot.rst)."""
    image = path.read_bytes()
    start = (image[0x1F1] + 1) * 512 + int.from_bytes(image[0x248:0x24C], "little")
    packed = image[start : start + int.from_bytes(image[0x24C:0x250], "little")]
    if packed.startswith(b"\xfd7zXZ"):
        kernel = lzma.LZMADecompressor().decompress(packed)
    else:
        import pyarrow as pa

        with pa.CompressedInputStream(pa.BufferReader(packed[:-4]), "zstd") as stream:
            kernel = bytes(stream.read())
    (table,) = struct.unpack_from("<Q", kernel, 0x28)
    size, count, names = struct.unpack_from("<HHH", kernel, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", kernel, table + n * size) for n in range(count)]
    for name, _, _, _, offset, length in sections:
        at = sections[names][4] + name
        if kernel[at : at + 5] == b".BTF\0":
            return kernel[offset : offset + length]
    raise SystemExit(f"{path} has no section .BTF.")


def wanted() -> set[str]:
    """Every type that the probe's headers describe, less what libbpf leaves aside (___x)."""
    source = "".join(p.read_text() for p in sorted((ROOT / "analysis/probe").glob("*.[ch]")))
    named = re.findall(r"(?:struct|union|enum) (\w+) \{", source)
    return {name.partition("___")[0] for name in named} | set(
        re.findall(r"\} KERNEL_TYPE (\w+);", source)
    )


@functools.cache
def recorded() -> dict[str, list[Type]]:
    """The types of every kernel in the archive, by its version."""
    found = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file
            found[member.name.removesuffix(".btf")] = read(file.read())
    return found


def main() -> None:
    """Write the archive."""
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for word in sys.argv[1:]:
            version, _, image = word.partition("=")
            content = write(cut(read(of_image(Path(image))), wanted()))
            entry = tarfile.TarInfo(f"{version}.btf")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            print(f"{version}: {len(content)} bytes")


if __name__ == "__main__":
    main()
