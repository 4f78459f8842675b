# SPDX-License-Identifier: GPL-2.0-only
"""A login shell, for a host that lies: it changes a byte of each large output that passes.

What it runs is sh's own; of what comes back, the frames of analysis/guest/link.h are taken apart.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys

FRAME = struct.Struct("<BBHII")
DATA, STDOUT = 2, 1
LARGE = 2000


def main() -> None:
    """Run the command, and change what it says."""
    command = os.environ["SSH_ORIGINAL_COMMAND"]
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE) as shell:
        assert shell.stdout
        while not (line := shell.stdout.readline()).startswith(b"anonvma-serve"):
            pass_on(line)
        pass_on(line)
        while len(head := shell.stdout.read(FRAME.size)) == FRAME.size:
            kind, stream, _, _, length = FRAME.unpack(head)
            payload = bytearray(shell.stdout.read(length))
            if (kind, stream) == (DATA, STDOUT) and length > LARGE:
                payload[length // 2] ^= 1
            pass_on(head + payload)
    sys.exit(shell.returncode)


def pass_on(data: bytes) -> None:
    """Write it out at once."""
    os.write(1, data)


if __name__ == "__main__":
    main()
