# SPDX-License-Identifier: GPL-2.0-only
"""``python -m anonvma`` does what ``anonvma`` does."""

from __future__ import annotations

from anonvma.cli import main

main()
