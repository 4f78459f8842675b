# SPDX-License-Identifier: GPL-2.0-only
"""Which target a word names, and whether there can be one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anonvma.base import paths
from anonvma.base.errors import TargetError, TargetLost
from anonvma.base.nearest import hint
from anonvma.target.local import Local
from anonvma.target.target import Target


def parse(text: str) -> Target:
    """Return the target that `text` names.

    Parameters
    ----------
    text : str
        ``local``, or ``guest:IMAGE`` with, if need be, ``,cpus=4``, ``,memory=4G``,
        ``,accel=tcg``, ``,modules=DIRECTORY`` and ``,append=WORDS`` behind it; see
        `anonvma.target.guest.Guest`. Or ``ssh:HOST`` with, if need be, ``,sudo=no``,
        ``,probe=PATH``, ``,config=FILE``, ``,patience=SECONDS`` and ``,wait=SECONDS``; see
        `anonvma.target.ssh`.

    Raises
    ------
    TargetError
        For anything else, and when there is no such target.
    """
    kind, where, options = _taken_apart(text)
    if kind == "guest":
        from anonvma.target.guest import Guest  # which needs this module

        return Guest(where, **options, keep=_keep)
    if kind == "ssh":
        from anonvma.target.ssh import Ssh  # likewise

        return Ssh(where, **options)
    return Local()


def _keep(error: TargetLost, about: dict[str, Any]) -> Path:
    """Keep the record of a guest that did not boot, where its run would have been."""
    from anonvma.run.writer import RunWriter  # pandas and pyarrow, for this case alone

    with RunWriter(paths.runs(), "boot") as writer:
        return writer.fail(error, about)


def check(text: str) -> None:
    """Refuse a target that cannot be one, without a look at the target itself.

    Raises
    ------
    TargetError
        The sentence that `parse` would raise: no such kind, option or image, or no QEMU.
    """
    kind, where, _ = _taken_apart(text)
    if kind == "guest":
        from anonvma.target import kernel_image, qemu

        kernel_image.open_image(where)
        qemu.find()
    if kind == "ssh":
        from anonvma.target import ssh_host

        ssh_host.check_host(where)


# For each kind of target but the local one: what it is called, and its options.
_KINDS = {
    "guest": ("a guest", ("cpus", "memory", "accel", "modules", "append")),
    "ssh": ("an ssh target", ("sudo", "probe", "config", "patience", "wait")),
}


def _taken_apart(text: str) -> tuple[str, str, dict[str, Any]]:
    """Return the kind of a target, where it is, and its options."""
    kind, _, rest = text.partition(":")
    if text == "local":
        return text, "", {}
    if kind not in _KINDS:
        told = hint(kind, ["local", *_KINDS], "use 'local', 'guest:IMAGE' or 'ssh:HOST'.")
        raise TargetError(f"target {text!r} is not known: {told}")
    where, options = _options(text, rest, *_KINDS[kind])
    if kind == "guest" and not where:
        raise TargetError(f"target {text!r} names no image: write guest:PATH-OF-A-KERNEL-IMAGE.")
    return kind, where, options


def _options(text: str, rest: str, kind: str, known: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Take apart what follows the kind; a comma belongs to the path unless a name follows it."""
    first, *words = re.split(r",(?=[a-z]+=)", rest)
    options: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known or name in options:
            every = f"{kind} takes {', '.join(known)}."
            why = f"is given twice; {every}"
            if name not in known:
                why = f"is not known: {hint(name, known, every)}"
            raise TargetError(f"target {text!r}: {name} {why}")
        options[name] = value
    return first, options
