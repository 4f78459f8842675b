# SPDX-License-Identifier: GPL-2.0-only
"""What differs from one architecture to another: a kernel's guest follows its image, not this host.

The kernel's source has one name for each (``arch/x86``), ``uname -m`` another, and so on; they are
here, and nowhere else.
"""

from __future__ import annotations

import platform
from typing import NamedTuple


class Architecture(NamedTuple):
    """An architecture that guests may be of.

    Attributes
    ----------
    name : str
        As people write it.
    arch : str
        The kernel's ``ARCH``, which ``make build`` takes as well.
    machine : str
        As ``uname -m`` has it.
    qemu : str
        The program that is its machine.
    package : str
        Debian's package of that.
    board : str
        QEMU's ``-machine``.
    emulated : str
        What that has besides under TCG.
    cpu : str
        QEMU's ``-cpu`` under TCG.
    console : str
        The name of the first serial port.
    loader : str
        The dynamic loader of its programs.
    """

    name: str
    arch: str
    machine: str
    qemu: str
    package: str
    board: str
    emulated: str
    cpu: str
    console: str
    loader: str

    @property
    def programs(self) -> str:
        """The directory in ``build/`` that its programs are in; empty for this machine's own."""
        return "" if self.machine == platform.machine() else self.arch


def here() -> Architecture:
    """Return this machine's; where no guest can be of that, x86-64."""
    return next((each for each in (X86, ARM64) if each.machine == platform.machine()), X86)


X86 = Architecture(
    name="x86-64",
    arch="x86",
    machine="x86_64",
    qemu="qemu-system-x86_64",
    package="qemu-system-x86",
    board="pc",
    emulated="",
    cpu="max",
    console="ttyS0",
    loader="ld-linux-x86-64.so.2",
)
ARM64 = Architecture(
    name="arm64",
    arch="arm64",
    machine="aarch64",
    qemu="qemu-system-aarch64",
    package="qemu-system-arm",
    # The newest interrupt controller there is: the older one has 8 processors at most.
    board="virt,gic-version=max",
    # Memory for tags, without which its processor has no MTE.
    emulated=",mte=on",
    # The architecture's own algorithm of pointer authentication is half of the time under TCG.
    cpu="max,pauth-impdef=on",
    console="ttyAMA0",
    loader="ld-linux-aarch64.so.1",
)
