# SPDX-License-Identifier: GPL-2.0-only
"""Shapes of secrets: how keys, tokens and names of machines look, whoever wrote them down."""

from __future__ import annotations

import re

TOKENS = tuple(
    re.compile(shape)
    for shape in (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*-----)?",
        r"\b(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{16,}\b",
        r"\bgh[pousr]_\w{20,}",
        r"\bgithub_pat_\w{20,}",
        r"\bglpat-[\w-]{16,}",
        r"\bxox[a-z]-[\w-]{8,}",
        r"\b[sr]k[-_](?:live|test|proj|ant)[-_][\w-]{12,}",
        r"\bAIza[\w-]{30,}",
        r"\beyJ[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*)?",
        r"\b(?i:bearer|basic)\s+[\w.~+/=-]{12,}",
        r"(?<=://)[^\s/@:]+:[^\s/@]+@",
        r"\bssh-(?:rsa|ed25519|dss)\s+[A-Za-z0-9+/=]{20,}",
    )
)
"""Keys and tokens: of clouds, forges and chats, signed ones, those in a header or an address."""

HOST_NAME = re.compile(
    r"(?<![\w.@/-])(?:[A-Za-z0-9](?:[\w-]*[A-Za-z0-9])?\.)+"
    r"(?:com|org|net|edu|gov|mil|int|io|dev|ai|app|cloud|co|info|biz|xyz|tech|systems|example|test"
    r"|uk|de|fr|nl|pl|cz|eu|us|ca|au|jp|cn|br|ru|ch|se|fi|dk|es|be|kr|tw|sg|ie|hu|ro|ua|il|nz|za"
    r"|local|lan|corp|internal|intranet|home|localdomain|arpa|onion)\b(?![\w-])",
    re.I,
)
"""A whole host name, told by the end of its domain."""

PRIVATE_PLACE = re.compile(
    r"(?<![\w.<)\]/:*-])/(?:usr/local|usr/src|etc|boot)/[\w.+@~%-]+(?:/[\w.+@~%-]+)*/?"
)
"""What somebody put beside what a distribution has."""
