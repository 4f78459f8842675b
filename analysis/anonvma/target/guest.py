# SPDX-License-Identifier: GPL-2.0-only
"""A kernel image booted under QEMU, as a target.

One way serves every image: an initramfs of our own that holds nothing but `analysis/guest`'s init
and our static programs. It asks nothing of the kernel but an initrd and a serial port, boots in
seconds, and needs no root here. virtme-ng, which shares the host's files with the guest, is not
used: it needs 9p or virtiofs and overlayfs, which many images lack (Debian's cloud kernel, a
kernel of one's own), and what came with the host would then be part of what is observed.

Commands and files travel over a virtio port, whose driver may be built in or a module beside the
image, else over the second serial port. The first serial port is the console, and its log is kept.

What a guest can do wrong ends it: it panics when it is out of memory or damaged, QEMU ends then
instead of starting it again, and init's heartbeat tells a guest that hangs from one that is busy.
Each is a TargetLost, apart from the TargetError of a command that only failed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anonvma.base import bounded, paths
from anonvma.base.errors import TargetError, TargetLost
from anonvma.target import initramfs, kernel_image, qemu
from anonvma.target.facts import facts_of
from anonvma.target.link import Link
from anonvma.target.local import Local
from anonvma.target.machine import Machine
from anonvma.target.remote import Remote, error_of
from anonvma.target.sysctl import sysctl_path
from anonvma.target.target import Raised

_KVM = "/dev/kvm"
_WORK = "/anonvma"  # in the guest, where programs and files go
_INIT = "/init"
_PROGRAMS = ("vmaprobe", "vmload", "specimens")
_MODULES = ("virtio_pci", "virtio_console")

# Seconds without a word on the console while booting: under a KVM that works the kernel's first
# words come within one, and the whole boot takes two or three.
_KVM_SILENCE = 5.0
_BOOT_SILENCE = 60.0
_BOOTS = 3

_KVM_FAILED: dict[tuple[Path, str], str] = {}
"""By image, why KVM did not boot it. Only failures, and only in this process: another try costs
seconds, and KVM may work the next time."""

TCG_NOTE = (
    "This guest ran under TCG, which translates every instruction: counts and classes are a real "
    "machine's, times are not, and ratios of them only so far as tasks contended."
)
ONE_THREAD_NOTE = (
    "Its processors took turns on one thread of the host: before 8.1 QEMU may go on running a "
    "translation of code that another processor has just patched, and a guest whose tracing "
    "is switched on and off then panics. So its threads hardly contend for a lock."
)


class Guest(Remote):
    """A kernel booted in a virtual machine of its own, in which everything is root.

    Parameters
    ----------
    image : str or path
        A bzImage of x86-64, an Image of arm64, or a distribution's vmlinuz; the machine follows it.
    cpus : int
        Virtual processors.
    memory : str or int
        Bytes, or such as ``2G``.
    accel : str
        ``kvm``, ``tcg``, or ``auto``: KVM if it boots this image within seconds, else TCG.
    modules : path, optional
        Directory of the image's modules; by default looked for beside the image. An empty string
        means that there are none.
    append : str
        More words for the kernel's command line.
    keep : callable, optional
        Keeps the console of a guest that did not boot, with facts about it, and returns where.

    Raises
    ------
    TargetError
        The image is no kernel, QEMU is missing, a parameter is impossible, or too little memory.
    TargetLost
        It did not boot; the console's log is in the error's `console`.
    """

    def __init__(
        self,
        image: str | Path,
        *,
        cpus: int | str = 2,
        memory: str | int = "2G",
        accel: str = "auto",
        modules: str | Path | None = None,
        append: str = "",
        keep: Callable[[TargetLost, dict[str, Any]], Path] | None = None,
    ) -> None:
        self.image = kernel_image.open_image(image)
        self.name = f"guest:{image}"
        self.where, self.agent, self.work = "in the guest", _INIT, _WORK
        self.cpus, self.memory = _cpus(cpus), _memory(memory)
        self._append = append
        self.notes: list[str] = []
        self._architecture = self.image.architecture
        self.programs = self._architecture.programs
        packed = self._pack(modules)
        self._require_memory(len(packed))
        if accel not in ("auto", "kvm", "tcg"):
            raise TargetError(f"accel {accel!r} is not known: use auto, kvm or tcg.")
        self._local = Local()
        try:
            self._qemu = qemu.find(self._architecture)
            self._kernel = self._unpacked()
            self._initramfs = Path(self._local.place("initramfs"))
            self._initramfs.write_bytes(packed)
            self._machine = self._boot(accel)
        except TargetLost as error:
            self._local.close()
            raise self._kept(error, keep) if keep else error from None
        except BaseException:
            self._local.close()
            raise
        if self._machine.accel == "tcg":
            self.notes.append(TCG_NOTE)
            if self._qemu.threads == "single":
                self.notes.append(f"{ONE_THREAD_NOTE} No later QEMU: {self._qemu.lacks}")

    def close(self) -> None:
        """End the guest; nothing in it is worth an orderly end."""
        self._machine.stop()
        self._local.close()

    # ---- before it boots ----

    def _pack(self, modules: str | Path | None) -> bytes:
        """Return the initramfs, and remember which programs are in it."""
        self._packed: dict[str, bytes] = {}
        for name in _PROGRAMS:
            self._packed[name] = paths.program(name, self.programs).read_bytes()
        init = paths.program("guest-init", self.programs).read_bytes()
        directory = kernel_image.module_directory(self.image) if modules is None else None
        if modules:
            directory = Path(modules)
            if not directory.is_dir():
                raise TargetError(f"there is no directory of modules {modules}.")
        found = kernel_image.find_modules(directory, _MODULES) if directory else []
        return initramfs.pack(init, self._packed, found)

    def _unpacked(self) -> Path:
        """Return the kernel that QEMU is given: of those that are compressed it knows a few."""
        if self.image.unpacked is None:
            return self.image.path
        kernel = Path(self._local.place("kernel"))
        kernel.write_bytes(self.image.unpacked)
        return kernel

    def _require_memory(self, initramfs_bytes: int) -> None:
        needed = self.image.needs_bytes + initramfs_bytes
        if self.memory < needed:
            raise TargetError(
                f"{self.memory >> 20} MiB are too little memory for {self.image.path.name}: it "
                f"needs {-(-needed >> 20)} MiB only to unpack itself; 256 MiB and more work well."
            )

    # ---- booting ----

    def _boot(self, accel: str) -> Machine:
        """Boot with the accelerator asked for; for ``auto`` the first boot is KVM's trial."""
        if accel == "tcg":
            self.accel_reason = "asked for"
            return self._started("tcg", _BOOT_SILENCE)
        reason = self._kvm_lacks()
        if reason is None:
            machine = self._try_kvm()
            if isinstance(machine, Machine):
                self.accel_reason = "a trial boot worked"
                return machine
            reason = machine
            _KVM_FAILED[self._image_key] = reason
        if accel == "kvm":
            raise TargetError(f"cannot boot with KVM: {reason}; accel=tcg does without.")
        self.accel_reason = f"no KVM: {reason}"
        return self._started("tcg", _BOOT_SILENCE)

    @property
    def _image_key(self) -> tuple[Path, str]:
        return self.image.path, self.image.sha256

    def _kvm_lacks(self) -> str | None:
        """Return why KVM need not be tried."""
        if self.programs:
            return f"the kernel is for {self._architecture.name}, unlike this machine"
        if not os.path.exists(_KVM):
            return f"there is no {_KVM}"
        if not os.access(_KVM, os.R_OK | os.W_OK):
            return f"this user may not open {_KVM}"
        return _KVM_FAILED.get(self._image_key)

    def _try_kvm(self) -> Machine | str:
        """Return a guest that has booted under KVM, or why there is none."""
        try:
            return self._started("kvm", _KVM_SILENCE)
        except TargetLost as error:
            return f"a trial boot did not work ({error.cause})"

    def _started(self, accel: str, silence: float) -> Machine:
        """Boot, and boot again where a processor's timer never fires."""
        for boot in range(1, _BOOTS + 1):
            machine = Machine(self._local, self._words(accel), accel, self.name, self.memory)
            try:
                self._wait_for_init(machine, silence)
                break
            except BaseException as error:
                machine.stop()
                if boot == _BOOTS or not (isinstance(error, TargetLost) and machine.lacks_timer()):
                    raise
        if boot > 1:
            self.notes.append(
                f"This guest is boot {boot}: before it, a virtual processor's timer never fired, "
                f"which happens under QEMU {self._qemu.version}."
            )
        return machine

    @staticmethod
    def _wait_for_init(machine: Machine, silence: float) -> None:
        """Wait as long as the console has something to say every so often."""
        size, changed = -1, time.monotonic()
        while machine.link.wait_for_hello(0.1) is None:
            now = machine.console_size()
            if now != size:
                size, changed = now, time.monotonic()
            if "KVM internal error" in machine.qemu_log():  # it is stopped; QEMU stays
                raise machine.explain("stopped with a KVM internal error")
            if time.monotonic() - changed > silence:
                raise machine.explain(f"did not boot, its console silent for {silence:g} s")

    def _kept(
        self, error: TargetLost, keep: Callable[[TargetLost, dict[str, Any]], Path]
    ) -> TargetLost:
        """Return the error that says where the console of a guest that did not boot is."""
        about = {
            "target": {
                "kind": "guest",
                "cpus": self.cpus,
                "memory_given_bytes": self.memory,
                "qemu_version": self._qemu.version,
                "image_sha256": self.image.sha256,
                "append": self._append,
            }
        }
        sentence = f"{str(error).rstrip('.')}; its record is in {keep(error, about)}."
        return TargetLost(sentence, error.console, error.cause)

    def _words(self, accel: str) -> list[str]:
        """Return QEMU's command line, up to where its ports lead."""
        machine = self._architecture
        how = f"tcg,thread={self._qemu.threads}" if accel == "tcg" else accel
        cpu = "host" if accel == "kvm" else machine.cpu
        board = machine.board + (machine.emulated if accel == "tcg" else "")
        return [
            self._qemu.path,
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-machine", board, "-accel", how, "-cpu", cpu),
            *("-smp", str(self.cpus), "-m", f"size={self.memory >> 20}M"),
            *("-kernel", str(self._kernel), "-initrd", str(self._initramfs)),
            *("-append", f"console={machine.console} panic=-1 {self._append}".strip()),
        ]

    # ---- as any target ----

    @property
    def link(self) -> Link:
        """The link to its init."""
        return self._machine.link

    def which(self, program: str) -> str | None:
        """Return the path that `program` would run from, or None."""
        path = program if "/" in program else self.place(program)
        return None if self._tool("executable", path)[0] else path

    def push(self, path: Path) -> str:
        """Copy a file into the guest and return its path there; what it has, it has.

        Raises
        ------
        TargetError
            When the file cannot be read or copied.
        """
        try:
            content = bounded.regular(path, 1 << 30)
        except OSError as error:
            raise TargetError(f"cannot copy {path}: {error.strerror}.") from None
        there = self.place(path.name)
        if self._packed.get(path.name) != content:
            self._put(there, content, "700")
            self._packed[path.name] = content
        return there

    def facts(self) -> dict[str, Any]:
        """Describe the guest by what matters to a measurement; see `facts_of`.

        Beside those: ``accel``, ``accel_reason``, ``qemu_version``, ``qemu_private`` (fetched into
        build/, not the system's), ``qemu_threads`` (``multi``: one a virtual processor; ``single``:
        they take turns on one), ``real_cpus`` (how many this process may run on, and so the guest),
        ``link`` (which kind of port), ``memory_given_bytes`` (of which the kernel keeps some),
        ``image_sha256``, ``append``.
        """
        return facts_of(self, "guest") | {
            "accel": self._machine.accel,
            "accel_reason": self.accel_reason,
            "qemu_version": self._qemu.version,
            "qemu_private": self._qemu.private,
            "qemu_threads": "multi" if self._machine.accel == "kvm" else self._qemu.threads,
            "real_cpus": len(os.sched_getaffinity(0)),
            "link": self._machine.port,
            "memory_given_bytes": self.memory,
            "image_sha256": self.image.sha256,
            "append": self._append,
        }

    def logs(self) -> dict[str, bytes]:
        """Return what the target itself has to say of a run: its console."""
        return {"console.log": self._machine.console()}

    def require_privilege(self) -> None:
        """Do nothing: everything in a guest is root."""

    @contextmanager
    def sysctl_at_least(self, name: str, value: int) -> Iterator[Raised]:
        """Have the sysctl `name` at `value` or more while the block runs, and put it back.

        Raises
        ------
        TargetError
            When it cannot be raised.
        """
        path = str(sysctl_path(name))
        present = int(self.read(path))
        raised = Raised(name, present, max(present, value))
        if raised.new != present:
            self._set(path, raised.new)
        try:
            yield raised
        finally:
            if raised.new != present:
                try:
                    self._set(path, present)
                except TargetLost:  # and its sysctls with it
                    pass

    def _set(self, path: str, value: int) -> None:
        number, _ = self._tool("put", path, "644", input=b"%d\n" % value)
        if number:
            raise TargetError(f"cannot write {path} in the guest: {error_of(number)}.")


# ---- words ----


def _cpus(value: int | str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,2}", str(value)) or int(value) > 255:
        raise TargetError(f"cpus {value!r} is not a number of processors from 1 to 255.")
    return int(value)


def _memory(value: int | str) -> int:
    match = re.fullmatch(r"([1-9]\d{0,14})([kmgt]?)(i?b)?", str(value).strip().lower())
    size = int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2]] if match else 0
    if size < 1 << 20:
        raise TargetError(f"memory {value!r} is not an amount of memory, such as 512M or 2G.")
    return size
