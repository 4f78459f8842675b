# SPDX-License-Identifier: GPL-2.0-only
"""What the commands that run vmaprobe share."""

from __future__ import annotations

from anonvma.base.errors import PrivilegeError
from anonvma.target import target


def require_privilege(there: target.Target) -> None:
    """Say with the refusal what can be seen all the same."""
    try:
        there.require_privilege()
    except PrivilegeError as error:
        raise PrivilegeError(
            f"{error} 'anonvma demo' shows the same of recorded data, without privilege."
        ) from None
