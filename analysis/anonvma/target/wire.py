# SPDX-License-Identifier: GPL-2.0-only
"""The frames of a link, as ``analysis/guest/link.h`` describes them."""

from __future__ import annotations

import struct

FRAME = struct.Struct("<BBHII")
MAGIC = 0xA50F
VERSION = 2
FRAME_MAX = WINDOW = 32768
START, DATA, CREDIT, SIGNAL, STARTED, ENDED, HELLO, BEAT = range(1, 9)
CLAIM, CLAIMED, BUSY, HASH = range(9, 13)
NULL, PIPE, STDOUT = range(3)
NUMBER = struct.Struct("<I")
BEGUN = struct.Struct("<ii")
OVER = struct.Struct("<iI6Q")

AS_USER, AS_ROOT, AS_GUARD = range(3)
"""As whom a command runs: as who logged in, or as the target's own process; or, a guard, it is no
command but the file of a sysctl and a value (see ``analysis/guest/raise.c``)."""
