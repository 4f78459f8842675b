# SPDX-License-Identifier: GPL-2.0-only
"""Parameters that do not exist or cannot be stop a notebook, with one sentence, before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anonvma.base.errors import AnonvmaError, ParameterError, RunError, TargetError, WorkloadError
from anonvma.report import notebooks
from anonvma.study import parameters

DECLARED = 'run = "x"\nthreads: int = 2\n'


def test_known_parameters_pass() -> None:
    parameters.check_cells(["", DECLARED, "# Parameters\nrun = 'y'\nthreads = 3\n"])


def test_nothing_injected_passes() -> None:
    parameters.check_cells(["", DECLARED, "print(1)"])
    parameters.check()


def test_unknown_parameter_names_the_nearest() -> None:
    with pytest.raises(ParameterError, match=r"no parameter 'treads': did you mean 'threads'\?"):
        parameters.check_cells(["", DECLARED, "# Parameters\ntreads = 3\n"])
    with pytest.raises(ParameterError, match="'zzz': it has run, threads"):
        parameters.check_cells(["", DECLARED, "# Parameters\nzzz = 3\n"])


def test_unknown_parameter_stops_before_papermill(tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    with pytest.raises(ParameterError, match="no parameter 'rum': did you mean 'run'"):
        notebooks.execute("02-census", output, {"rum": "x"})
    assert not output.exists()


IMPOSSIBLE: list[tuple[str, dict[str, Any], type[AnonvmaError], str]] = [
    ("01-collect", {"target": "local", "threads": 0}, WorkloadError, "threads is 0"),
    ("01-collect", {"target": "moon"}, TargetError, "moon"),
    ("02-census", {"run": "no-such-run"}, RunError, "there is no run 'no-such-run'"),
]


@pytest.mark.parametrize(("name", "given", "kind", "words"), IMPOSSIBLE)
def test_impossible_value_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    build: Path,
    name: str,
    given: dict[str, Any],
    kind: type[AnonvmaError],
    words: str,
) -> None:
    monkeypatch.setenv("ANONVMA_RUNS", str(tmp_path / "runs"))
    with pytest.raises(kind, match=words) as caught:
        notebooks.execute(name, tmp_path / "out.ipynb", given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()
