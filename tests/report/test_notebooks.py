# SPDX-License-Identifier: GPL-2.0-only
"""The committed notebooks: executed, small, checked; and the page made of one."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from anonvma.base.errors import NotebookError
from anonvma.report import notebooks
from anonvma.run import dictionary, runs

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHOWS_NOTHING = {"parameters", "silent"}  # tags of cells without output


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    assert {"01-collect", "02-census", "06-report"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_was_executed_in_order(path: Path) -> None:
    """nbval passes a cell that never ran without checking anything."""
    assert [cell.execution_count for cell in code_cells(path)] == list(
        range(1, len(code_cells(path)) + 1)
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_checked_cells_have_outputs(path: Path) -> None:
    for cell in code_cells(path):
        tags = set(cell.metadata.get("tags", []))
        assert bool(cell.outputs) != bool(tags & SHOWS_NOTHING), cell.source
        assert not any(output.output_type == "error" for output in cell.outputs)
        assert not any(tag.startswith(("nbval-", "skip")) for tag in tags)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_and_the_parameters_are_tagged(path: Path) -> None:
    cells = code_cells(path)
    assert "parameters" in cells[0].metadata.tags
    for cell in cells[1:]:
        assert len(cell.source.splitlines()) <= 15, cell.source
    assert len(cells[0].source.splitlines()) <= 20


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_the_machine_is_in_the_outputs(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"/home/|/root\b|ffff[89a-f][0-9a-f]{11}", text)
    assert str(ROOT) not in text


def test_failure_that_is_not_ours_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "notebooks" / "broken.ipynb"
    broken.parent.mkdir()
    notebook = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "x", "language": "python"}
    notebook.cells = [nbformat.v4.new_code_cell("1 / 0")]  # type: ignore[no-untyped-call]
    nbformat.write(notebook, broken)  # type: ignore[no-untyped-call]
    monkeypatch.setattr(notebooks.paths, "root", lambda: tmp_path)
    with pytest.raises(NotebookError, match="notebook broken failed: ZeroDivisionError"):
        notebooks.execute("broken", tmp_path / "out.ipynb", {})
    with pytest.raises(NotebookError, match="there is no notebook absent"):
        notebooks.execute("absent", tmp_path / "out.ipynb", {})


def test_data_dictionary_is_in_step() -> None:
    """data/README.md ends with what the schemas say."""
    assert (ROOT / "data" / "README.md").read_text().endswith(dictionary.dictionary())


def test_recorded_runs_open_and_name_nobody() -> None:
    recorded = sorted((ROOT / "data" / "recorded").glob("*/"))
    assert recorded
    for directory in recorded:
        run = runs.Run.open(directory)
        assert not run.manifest.raw
        words = run.manifest.model_dump_json()
        if "census" in run.manifest.tables:
            vmas = run.table("census")
            words += " ".join(str(text) for text in vmas["path"].cat.categories)
            # Programs of a distribution have its libraries; ours are static.
            if not directory.name.startswith("programs-"):
                assert set(vmas["comm"]) <= {"vmload", "specimens"}
                assert "/usr/lib" not in words
        assert not re.search(rf"/home/|/root\b|{re.escape(str(ROOT))}", words)


def test_a_kernel_takes_no_port_that_another_may_have_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that start at the same moment chose one, and one of them died."""
    deep = tmp_path / ("d" * 120)  # the address of a socket has 108 bytes
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr(notebooks.engine.tempfile, "tempdir", None)
    ask = "import json, ipykernel; print(json.loads(ipykernel.get_connection_info())['transport'])"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(ask)])  # type: ignore[no-untyped-call]
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "x", "language": "python"}
    nbformat.write(book, tmp_path / "asks.ipynb")  # type: ignore[no-untyped-call]
    done = notebooks.execute(str(tmp_path / "asks.ipynb"), tmp_path / "done.ipynb", {})
    assert done.cells[0].outputs[0].text.strip() == "ipc"
    assert list(deep.iterdir()) == []


def test_notebooks_that_share_a_kernel_know_nothing_of_each_other(tmp_path: Path) -> None:
    def executed(name: str, *sources: str) -> str:
        file = tmp_path / f"{name}.ipynb"
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), file)
        done = notebooks.execute(str(file), tmp_path / f"{name}-done.ipynb", {})
        assert [cell.execution_count for cell in done.cells] == [1, 2]
        return str(done.cells[0].outputs[0].text).strip()

    ask = "import os; print(os.getpid(), 'left' in globals(), len(In), Out)"
    with notebooks.one_kernel():
        pid, *first = executed("first", ask, "left = 1").split(" ", 1)
        again, *second = executed("second", ask, "left = 2").split(" ", 1)
        assert first == second == ["False 2 {}"]
        assert pid == again
        with pytest.raises(NotebookError):
            executed("failing", "1 / 0", "left = 3")
    assert not Path(f"/proc/{pid}").exists()
    assert executed("apart", ask, "left = 4").split(" ")[0] != pid
