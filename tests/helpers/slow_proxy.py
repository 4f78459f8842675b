# SPDX-License-Identifier: GPL-2.0-only
"""A ProxyCommand that makes a connection slow: slow_proxy.py HOST PORT BYTES_A_SECOND DELAY_S."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable

CHUNK = 4096


def carry(
    take: Callable[[int], bytes], give: Callable[[bytes], object], rate: float, delay: float
) -> None:
    """Carry bytes from one end to the other at a rate, each some time after it came."""
    while data := take(CHUNK):
        time.sleep(delay + len(data) / rate)
        give(data)


def write_all(data: bytes) -> None:
    """Write to standard output."""
    while data:
        data = data[os.write(1, data) :]


def main() -> None:
    """Carry both ways until either end closes."""
    host, port, rate, delay = sys.argv[1:]
    with socket.create_connection((host, int(port))) as there:
        ways = [
            (lambda size: os.read(0, size), there.sendall),
            (there.recv, write_all),
        ]
        for take, give in ways:
            threading.Thread(
                target=end_after, args=(take, give, float(rate), float(delay)), daemon=True
            ).start()
        ended.wait()


ended = threading.Event()


def end_after(
    take: Callable[[int], bytes], give: Callable[[bytes], object], rate: float, delay: float
) -> None:
    """Carry, and tell when it is over."""
    try:
        carry(take, give, rate, delay)
    except OSError:  # the other end is gone
        pass
    finally:
        ended.set()


if __name__ == "__main__":
    main()
