# SPDX-License-Identifier: GPL-2.0-only
"""Names that can be nothing but a host's."""

from __future__ import annotations

import re

from anonvma.base.errors import TargetError

_USER = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_ADDRESS = r"[0-9A-Fa-f.:]*:[0-9A-Fa-f.:]*(?:%[A-Za-z0-9_.-]+)?"
_HOST = re.compile(
    rf"(?:{_USER}@)?(?:{_NAME}|{_ADDRESS})"
    rf"|ssh://(?:{_USER}@)?{_NAME}(?::[0-9]{{1,5}})?"
)


def check_host(host: str) -> str:
    """Return `host` if it can be nothing but the name of one.

    ssh hands names on to commands of its configuration, and takes what begins with a dash for an
    option: neither a name that a shell would take apart nor such a one gets there.

    Raises
    ------
    TargetError
        When it could be something else.
    """
    if not _HOST.fullmatch(host) or len(host) > 255:
        raise TargetError(
            f"{host!a} cannot be the name of a host: write ssh:HOST, ssh:USER@HOST or "
            "ssh:ssh://USER@HOST:PORT, of letters, digits and '._-' (an address may have ':'); "
            "give any other name an alias in ~/.ssh/config."
        )
    return host
