# SPDX-License-Identifier: GPL-2.0-only
"""Who sends mail from here, and sending it: by the user's own git send-email."""

from __future__ import annotations

import subprocess
from pathlib import Path

from anonvma.base.errors import MailError
from anonvma.report.headers import address, addresses, text
from anonvma.report.mail_file import parse


def identity() -> str | None:
    """Return who sends mail from here, as git's configuration says; None where it does not.

    Git itself would make an address from the names of user and host, which are to stay here.
    """
    if sender := _configured("sendemail.from"):
        return sender
    name, spec = _configured("user.name"), _configured("user.email")
    return address(name, spec) if name and spec else None


def _configured(key: str) -> str:
    try:
        done = subprocess.run(["git", "config", "--get", key], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def send(file: Path) -> None:
    """Send a message by the user's own ``git send-email``, as it stands.

    Whoever calls this has shown it and asked.

    Raises
    ------
    MailError
        When git cannot send mail, or did not.
    """
    message = parse(file.read_bytes())
    argv = ["git", "send-email", "--confirm=never", "--no-chain-reply-to", "--no-thread"]
    # Whoever is to have it is in its To and Cc; nobody is guessed from its text.
    for kind in ("author", "body", "cccmd", "misc-by", "sob", "bodycc"):
        argv.append(f"--suppress-cc={kind}")
    if sender := text(message, "From"):
        argv.append(f"--from={sender}")
    argv += [f"--to={who}" for who in addresses(message, "To")]
    can_send()
    # It may ask for a password, so the terminal is its own.
    done = subprocess.run([*argv, str(file.resolve())])
    if done.returncode:
        raise MailError(
            f"git send-email ended with exit status {done.returncode}; what it said is above."
        )


def can_send() -> None:
    """Make sure that there is a ``git send-email``.

    Raises
    ------
    MailError
        When there is none.
    """
    try:
        done = subprocess.run(["git", "--exec-path"], capture_output=True, text=True)
    except FileNotFoundError:
        raise MailError("git is not installed, so nothing was sent.") from None
    if not (Path(done.stdout.strip()) / "git-send-email").exists():
        raise MailError("git cannot send mail here: install git-email; nothing was sent.")
