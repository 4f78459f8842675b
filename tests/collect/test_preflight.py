# SPDX-License-Identifier: GPL-2.0-only
"""What can be checked beforehand is told before a kernel starts: here starting one is a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbclient
import papermill
import pytest
from click.testing import CliRunner

from anonvma.base.errors import AnonvmaError
from anonvma.cli import main
from anonvma.report import notebooks
from anonvma.report.engine import Refused

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"

pytestmark = pytest.mark.usefixtures("build")


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No kernel of Jupyter's, and no guest; and no run is kept where the user's are."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(nbclient.NotebookClient, "start_new_kernel", fail)
    monkeypatch.setattr(nbclient.NotebookClient, "async_start_new_kernel", fail)
    monkeypatch.setenv("ANONVMA_RUNS", str(tmp_path / "runs"))


def refused(*words: str) -> str:
    """The sentence by which the command line refuses these words."""
    done = CliRunner().invoke(main, list(words))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (1, 2), done.output
    assert "Traceback" not in done.output
    return done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workload", "small-alocs-mt"], "did you mean 'small-allocs-mt'?"),
        (["--workload", "Small-Allocs-MT"], "did you mean 'small-allocs-mt'?"),
        (["--workload", "specimen"], "did you mean 'specimens'?"),
        (["--workload", "nosuchprogram --x"], "there is no program 'nosuchprogram'"),
        (["--workload", "pid:abc"], "names no process"),
        (["--workload", "pid:4000000"], "there is no process 4000000"),
        (["--bytes", "12q"], "'12q' is not a size"),
        (["--unit", "-4"], "'-4' is not a size"),
        (["--unit", "3"], "unit is 3: a mapping has at least 8 bytes"),
        (["--threads", "0"], "threads is 0"),
        (["--threads", "3", "--bytes", "1m"], "do not divide"),
        (["--repeats", "0"], "0 is not in the range"),
        (["--frequency", "0"], "frequency is 0"),
        (["--events", "a b"], "names of events"),
        (["--events", "page-faults,cycels"], "'cycels' on target local: did you mean 'cycles'?"),
        (["--events", "sched:sched_swich"], "did you mean 'sched:sched_switch'?"),
        (["--workload", "sleep 1", "--threads", "4"], "--threads would be ignored"),
        (["--workload", "sleep 1", "--bytes", "4m", "--unit", "4k"], "--bytes and --unit would"),
        (["--workload", "pid:1", "--unit", "4k"], "--unit would be ignored"),
        (["--workload", "specimens", "--repeats", "2"], "--repeats would be ignored"),
        (["--seconds", "2"], "--seconds would be ignored"),
    ],
)
def test_report_is_refused_before_anything_starts(words: list[str], said: str) -> None:
    output = refused("report", *words)
    assert said in output
    assert output.startswith(("anonvma: ", "Usage: "))


PAPERMILL: list[tuple[str, dict[str, Any], str]] = [
    ("01-collect", {"treads": 8}, "no parameter 'treads': did you mean 'threads'?"),
    ("01-collect", {"bytes": "64m"}, "bytes would be ignored: without a target nothing is"),
    ("01-collect", {"run": "specimens", "target": "local"}, "run would be ignored: with a target"),
    ("01-collect", {"bytes": "64m", "repeats": 1}, "bytes and repeats would be ignored"),
    ("01-collect", {"run": "small-alocs-mt"}, "did you mean 'small-allocs-mt'?"),
    ("01-collect", {"run": "anon-cow-rand"}, "there is no run 'anon-cow-rand'"),
    ("01-collect", {"target": "local", "repeats": 1.5}, "repeats is 1.5: a whole number"),
    ("01-collect", {"target": "local", "repeats": True}, "repeats is True: a whole number"),
    ("01-collect", {"target": "local", "threads": "four"}, "threads is 'four': a whole number"),
    ("01-collect", {"target": "local", "trace": "no"}, "trace is 'no': True or False"),
    ("01-collect", {"target": "local", "seconds": "x"}, "seconds is 'x': a number"),
    ("01-collect", {"target": "local", "bytes": ["4m"]}, "bytes is ['4m']: a text is needed"),
    ("01-collect", {"target": "local", "workload": "sleep 1", "unit": "4k"}, "unit would be"),
    ("01-collect", {"target": "locl"}, "'locl' is not known: did you mean 'local'?"),
    ("01-collect", {"target": "guest:/no/image"}, "cannot read the kernel image"),
    ("01-collect", {"target": "guest:x,cpu=2"}, "cpu is not known: did you mean 'cpus'?"),
    ("01-collect", {"target": "ssh:-oProxyCommand=x"}, "cannot be the name of a host"),
    ("02-census", {"run": "latst"}, "did you mean 'latest'?"),
    ("02-census", {"specimens": "specimen"}, "did you mean 'specimens'?"),
    ("03-faults", {"early": "erly-{workload}-*"}, "no run is called"),
    ("04-profile", {"base": "early-profil-*"}, "did you mean 'early-profile-*'?"),
    ("05-compare", {"head": "b=delayd-small-allocs-mt-*"}, "did you mean 'delayed-small-allocs"),
    ("05-compare", {"condition": "parameters"}, "a list of texts is needed, such as -y 'condition"),
    ("05-compare", {"control": ["x-*", "y-*"]}, "no run is called 'x-*'"),
    ("06-report", {"run": "x"}, "there is no run 'x'"),
    ("06-report", {"run": "specimens", "base": "a", "head": "b"}, "run would be ignored"),
    ("explore", {"other": "delayed-specimen-1"}, "did you mean 'delayed-specimens-1'?"),
]


@pytest.mark.parametrize(("name", "given", "said"), PAPERMILL)
def test_papermill_is_refused_before_its_kernel_starts(
    tmp_path: Path, name: str, given: dict[str, Any], said: str
) -> None:
    output = tmp_path / "out.ipynb"
    with pytest.raises(Refused) as caught:
        papermill.execute_notebook(
            str(NOTEBOOKS / f"{name}.ipynb"), str(output), parameters=given, progress_bar=False
        )
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not output.exists()
    with pytest.raises(AnonvmaError) as ours:
        notebooks.execute(name, output, given)
    assert str(ours.value) == str(caught.value)


def test_a_wrong_run_is_one_line_not_seventy_names() -> None:
    with pytest.raises(AnonvmaError) as caught:
        notebooks.execute("02-census", Path("out.ipynb"), {"run": "nothing-like-it"})
    assert len(str(caught.value)) < 200


def test_the_command_papermill_shows_the_sentence_alone(tmp_path: Path) -> None:
    """The engine is found by its entry point, in a process that knows nothing of us."""
    command = [str(Path(sys.executable).with_name("papermill")), "02-census.ipynb"]
    done = subprocess.run(
        [*command, str(tmp_path / "out.ipynb"), "--log-level", "ERROR", "-p", "run", "latst"],
        capture_output=True,
        text=True,
        cwd=NOTEBOOKS,
        env={**os.environ, "JUPYTER_PATH": "", "PATH": ""},
    )
    assert done.returncode == 1
    assert done.stderr == "Error: there is no run 'latst': did you mean 'latest'?\n"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_parameter_has_a_type_and_a_word_of_help(path: Path) -> None:
    for name, about in papermill.inspect_notebook(path).items():
        assert about["inferred_type_name"] in ("str", "int", "float", "bool", "list"), name
        assert len(about["help"]) > 5, name
    command = [str(Path(sys.executable).with_name("papermill")), "--help-notebook", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Unknown type" not in done.stdout and done.returncode == 0


def test_a_notebook_of_somebody_elses_is_papermills_own_affair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its unknown parameters only make papermill warn, and its kernel is started."""
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("a = 1")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "x", "language": "python"}
    source = tmp_path / "theirs.ipynb"
    nbformat.write(notebook, source)
    with pytest.raises(AssertionError, match="a kernel was started"):
        papermill.execute_notebook(
            str(source), str(tmp_path / "o.ipynb"), parameters={"b": 1}, progress_bar=False
        )


def test_a_study_tells_a_mistyped_workload_when_it_is_read(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("workloads: [small-alocs-mt]\n")
    assert "did you mean 'small-allocs-mt'?" in refused("batch", str(study))
    study.write_text("workloads: [small-allocs-mt]\ndefaults: {bytes: 12q}\n")
    assert "'12q' is not a size" in refused("batch", str(study), "--dry-run")
