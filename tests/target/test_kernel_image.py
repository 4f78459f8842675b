# SPDX-License-Identifier: GPL-2.0-only
"""anonvma.target.kernel_image and anonvma.target.initramfs: what a guest is booted from."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import stat
import struct
import subprocess
from pathlib import Path

import pytest
import tools

from anonvma.base.errors import TargetError
from anonvma.target.architecture import ARM64
from anonvma.target.initramfs import pack
from anonvma.target.kernel_image import Image, Module, find_modules, module_directory, open_image


def fake_kernel(release: bytes) -> bytes:
    """A header as Documentation/arch/x86/boot.rst has it, and nothing behind it."""
    content = bytearray(0x1000)
    content[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", content, 0x206, 0x20F)
    struct.pack_into("<H", content, 0x20E, 0x600)
    struct.pack_into("<H", content, 0x236, 1)
    struct.pack_into("<Q", content, 0x258, 16 << 20)
    struct.pack_into("<I", content, 0x260, 5 << 20)
    content[0x800 : 0x800 + len(release)] = release
    return bytes(content)


def fake_image(banner: bytes, flags: int = 0b1010) -> bytes:
    """A header as Documentation/arch/arm64/booting.rst has it, and the kernel's banner."""
    head = bytearray(0x40)
    struct.pack_into("<QQQ", head, 8, 0x80000, 5 << 20, flags)
    head[0x38:0x3C] = b"ARM\x64"
    return bytes(head) + bytes(100) + banner + bytes(1000)


def zboot(form: str, packed: bytes) -> bytes:
    """An EFI program around it, as zboot-header.S has that."""
    head = bytearray(0x40)
    head[:8] = b"MZ\0\0zimg"
    struct.pack_into("<II", head, 8, 0x100, len(packed))
    head[0x18 : 0x18 + len(form)] = form.encode()
    return bytes(head) + bytes(0x100 - 0x40) + packed + b"what follows"


def zstd(content: bytes) -> bytes:
    words = [tools.program("zstd")]
    return subprocess.run(words, input=content, capture_output=True, check=True).stdout


def image(path: Path, release: str = "6.12.0-test") -> Image:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(fake_kernel(f"{release} (me@here) #1 SMP".encode() + b"\0"))
    return open_image(path)


def test_what_a_header_says(tmp_path: Path) -> None:
    found = image(tmp_path / "bzImage")
    assert (found.release, found.needs_bytes) == ("6.12.0-test", 21 << 20)
    truncated = tmp_path / "truncated"
    truncated.write_bytes(fake_kernel(b"")[:0x250])
    with pytest.raises(TargetError, match="is not a kernel image that can be booted"):
        open_image(truncated)


ARM = fake_image(b"Linux version 6.12.0-arm (me@here) #1 SMP\0")


@pytest.mark.parametrize(
    "content",
    [
        ARM,
        gzip.compress(ARM, mtime=0),
        zboot("gzip", gzip.compress(ARM, mtime=0)),
        zboot("xzkern", lzma.compress(ARM)),
        "zstd22",
    ],
    ids=["plain", "gzip", "zboot gzip", "zboot xzkern", "zboot zstd22"],
)
def test_an_image_of_arm64_however_it_is_packed(tmp_path: Path, content: bytes | str) -> None:
    packed = zboot(content, zstd(ARM)) if isinstance(content, str) else content
    (tmp_path / "Image").write_bytes(packed)
    found = open_image(tmp_path)
    assert (found.architecture, found.release) == (ARM64, "6.12.0-arm")
    assert found.needs_bytes == (5 << 20) + 0x80000
    assert found.unpacked == (None if packed == ARM else ARM)
    assert found.sha256 == hashlib.sha256(packed).hexdigest()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(ARM, mtime=0)[:-20], "compressed by gzip, and damaged: its end is missing"),
        (
            gzip.compress(b"an initramfs", mtime=0),
            "compressed by gzip, and what that holds is no Image",
        ),
        (zboot("gzip", b"nonsense"), "unpacks a kernel, compressed by gzip, and damaged: "),
        (zboot("zstd22", b"nonsense"), "compressed by zstd22, and damaged: "),
        (zboot("lz4", ARM), "nothing here undoes lz4"),
        (fake_image(b"Linux version 6.12 (", flags=1), "a big-endian kernel"),
        (fake_image(b"no banner"), "does not say which Linux it is"),
    ],
    ids=["short", "no Image", "no gzip", "no zstd", "lz4", "big-endian", "no banner"],
)
def test_an_image_of_arm64_that_cannot_be_booted(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "Image").write_bytes(content)
    with pytest.raises(TargetError, match=what) as caught:
        open_image(tmp_path / "Image")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("kernel", "modules"),
    [
        ("boot/vmlinuz-6.12.0-test", "lib/modules/6.12.0-test"),
        ("boot/vmlinuz-6.12.0-test", "usr/lib/modules/6.12.0-test"),
        ("usr/lib/modules/6.12.0-test/vmlinuz", "usr/lib/modules/6.12.0-test"),
        ("vmlinuz", "lib/modules/6.12.0-test"),
    ],
)
def test_modules_beside_an_image(tmp_path: Path, kernel: str, modules: str) -> None:
    (tmp_path / modules).mkdir(parents=True)
    found = image(tmp_path / kernel)
    assert module_directory(found) == tmp_path / modules
    link = tmp_path / "elsewhere" / "kernel"
    link.parent.mkdir()
    link.symlink_to(found.path)
    assert module_directory(open_image(link)) == tmp_path / modules


def test_no_modules_beside_an_image(tmp_path: Path) -> None:
    (tmp_path / "lib/modules/6.1.0-other").mkdir(parents=True)
    assert module_directory(image(tmp_path / "boot/vmlinuz")) is None


def module(directory: Path, name: str, needs: str, form: str = "") -> None:
    content = b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0retpoline=Y\0"
    directory.mkdir(parents=True, exist_ok=True)
    if form == ".gz":
        content = gzip.compress(content)
    elif form == ".xz":
        content = lzma.compress(content)
    elif form == ".zst":
        content = zstd(content)
    (directory / f"{name}.ko{form}").write_bytes(content)


@pytest.mark.parametrize("form", ["", ".gz", ".xz", ".zst"])
def test_modules_come_after_what_they_need(tmp_path: Path, form: str) -> None:
    module(tmp_path / "a", "virtio-pci", "virtio,virtio-ring,built_in", form)
    module(tmp_path / "b", "virtio", "virtio_ring", form)
    module(tmp_path / "b", "virtio_ring", "", form)
    module(tmp_path / "c", "unwanted", "", form)
    found = find_modules(tmp_path, ["virtio_pci", "missing", "virtio"])
    assert [each.name for each in found] == ["virtio_ring", "virtio", "virtio_pci"]
    assert all(each.content.startswith(b"\x7fELF") for each in found)


def test_modules_that_need_one_another_end(tmp_path: Path) -> None:
    module(tmp_path, "a", "b")
    module(tmp_path, "b", "a")
    assert {each.name for each in find_modules(tmp_path, ["a"])} == {"a", "b"}


@pytest.mark.parametrize("form", [".gz", ".xz", ".zst"])
def test_a_damaged_module(tmp_path: Path, form: str) -> None:
    (tmp_path / f"a.ko{form}").write_bytes(b"nonsense")
    with pytest.raises(TargetError, match=r"cannot read the module .*a\.ko"):
        find_modules(tmp_path, ["a"])


def test_an_initramfs_is_what_cpio_reads() -> None:
    packed = pack(b"the init", {"probe": b"abcde"}, [Module("one", b"1"), Module("two", b"22")])
    listed = subprocess.run(
        [tools.program("cpio"), "--list", "--verbose", "--quiet"],
        input=packed,
        capture_output=True,
        check=True,
    ).stdout.decode()
    lines = {line.split()[-1]: line for line in listed.splitlines()}
    assert lines["init"].startswith("-rwxr-xr-x") and lines["dev/null"].startswith("crw")
    assert {"anonvma/probe", "modules/one.ko", "modules/order", "proc"} <= set(lines)


def test_an_initramfs_by_its_format() -> None:
    packed = pack(b"the init", {"probe": b"abcde"}, [Module("one", b"1")])
    found, at = {}, 0
    while True:
        head = packed[at : at + 110]
        assert head[:6] == b"070701"
        fields = [int(head[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
        name = packed[at + 110 : at + 110 + fields[11] - 1].decode()
        data = (at + 110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            break
        found[name] = (fields[1], fields[9:11], packed[data : data + fields[6]])
        at = (data + fields[6] + 3) & ~3
    assert found["init"] == (stat.S_IFREG | 0o755, [0, 0], b"the init")
    assert found["modules/order"][2] == b"one.ko\n"
    assert found["anonvma/probe"][2] == b"abcde"
    mode, device, _ = found["dev/null"]
    assert stat.S_ISCHR(mode) and os.makedev(*device) == os.stat("/dev/null").st_rdev


@pytest.mark.parametrize(
    "kernel",
    [
        *("arch/x86/boot/bzImage", "bzImage", "boot/vmlinuz-6.1.0-x"),
        *("lib/modules/6.1.0-x/vmlinuz", "usr/lib/modules/6.1.0-x/vmlinuz"),
    ],
)
def test_a_directory_stands_for_the_one_image_in_it(tmp_path: Path, kernel: str) -> None:
    found = image(tmp_path / "tree" / kernel)
    (tmp_path / "tree/vmlinuz").symlink_to(kernel)  # as stock-kernel has it
    assert open_image(tmp_path / "tree") == found


def test_a_directory_with_no_image_or_several(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="holds no kernel image: none of bzImage, "):
        open_image(tmp_path)
    for release in "ab":
        image(tmp_path / f"boot/vmlinuz-{release}")
    with pytest.raises(TargetError, match=r"2 kernel images, boot/vmlinuz-a, boot/vmlinuz-b: "):
        open_image(tmp_path)
