# SPDX-License-Identifier: GPL-2.0-only
"""One kernel on two architectures: what is the same there, what differs, and why."""

from __future__ import annotations

import pandas as pd
import pytest

from anonvma.compare import kernel_architectures, kernel_changes
from anonvma.compare.kernel_changes import Cause
from anonvma.compare.outcomes import VARIES


def found(kernel: str, release: str, seen: dict[str, str | None]) -> pd.DataFrame:
    rows = [(kernel, release, "state", name, word, None) for name, word in seen.items()]
    columns = ["kernel", "release", "part", "subject", "outcome", "note"]
    return pd.DataFrame(rows, columns=columns).astype("object")


def test_what_both_were_seen_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    why = Cause("state", "b", "", "", "", "*-amd64", "*-arm64", "", "it is configured otherwise")
    monkeypatch.setattr(kernel_changes, "causes", lambda: [why])
    here = {"a": "bare", "b": "bare", "c": VARIES, "d": "bare", "e": "bare", "f": None}
    there = {"a": "bare", "b": "guard", "c": "bare", "d": VARIES, "e": "guard", "g": "bare"}
    both = kernel_architectures.side_by_side(
        found("7.3", "7.3.4-amd64", here), found("arm64-7.3", "7.3.4-arm64", there)
    )
    verdicts = both.set_index("subject")["verdict"].to_dict()
    assert verdicts == {"a": "same", "b": "differ", "c": VARIES, "d": VARIES, "e": "differ"}
    assert both.set_index("subject")["why"].dropna().to_dict() == {"b": why.why}
    assert kernel_architectures.counts(both).loc[("state", "7.3")].tolist() == [1, 2, 2]
    differ = kernel_architectures.differing(both).set_index("subjects")["why"]
    assert differ.to_dict() == {"b": why.why, "e": ""}


def test_a_kernel_without_its_like_stands_beside_none() -> None:
    both = kernel_architectures.side_by_side(
        found("7.3", "7.3.4-amd64", {"a": "bare"}), found("arm64-7.2", "7.2-arm64", {"a": "bare"})
    )
    assert both.empty and kernel_architectures.differing(both).empty
