# SPDX-License-Identifier: GPL-2.0-only
"""Running the notebooks through papermill.

papermill and the notebook's kernel run where the user sits; only what a notebook asks a
target to do runs there.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from anonvma import engine, places, scratch
from anonvma.engine import Refused
from anonvma.errors import NotebookError
from anonvma.steps import Tell

__all__ = ["execute", "one_kernel", "text_of_cell"]


def execute(
    name: str, output: Path, parameters: dict[str, Any], tell: Tell | None = None
) -> nbformat.NotebookNode:
    """Run a notebook with parameters.

    Parameters
    ----------
    name : str
        Such as ``02-census``, or the path of a notebook of one's own.
    output : path
        Where the executed notebook goes; it is there, up to the failure, in any case.
    parameters : dict
    tell : callable, optional
        Called with the share of it that is done, and what is being done.

    Returns
    -------
    NotebookNode
        The executed notebook.

    Raises
    ------
    AnonvmaError
        Before anything runs: the notebook does not have that parameter, or cannot run with it; see
        `anonvma.preflight`. Else the sentence in which a cell failed; a NotebookError if that was
        not one of ours.
    """
    source = places.root() / "notebooks" / f"{name}.ipynb"
    if name.endswith(".ipynb"):
        source = Path(name).resolve()
    if not source.exists():
        raise NotebookError(f"there is no notebook {name}: {source} is missing.")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    given = {key: value for key, value in parameters.items() if value is not None}
    try:
        with _temporary_files_swept():
            notebook: nbformat.NotebookNode = papermill.execute_notebook(
                nbformat.read(source, as_version=4),  # type: ignore[no-untyped-call]
                _literal(output.resolve()),  # written as it goes, so that a failure leaves it
                parameters=given,
                cwd=str(source.parent),
                progress_bar=False,
                tell=tell,
                # ipykernel 7 warns at every start that it talks over TCP, and at some ends.
                extra_arguments=["--log-level=CRITICAL"],
            )
    except Refused as error:
        raise error.error from None
    except PapermillExecutionError as error:
        # Of somebody's own notebook, which the engine leaves alone.
        failure = engine.ours(error.ename, error.evalue)
        raise failure or NotebookError(
            f"notebook {name} failed: {error.ename}: {error.evalue}"
        ) from None
    except DeadKernelError:
        raise NotebookError(
            f"notebook {name} failed: its kernel was killed, perhaps for want of memory."
        ) from None
    # Again, without the paths of this machine that papermill writes down.
    for path in ("input_path", "output_path"):
        notebook.metadata.papermill[path] = None
    nbformat.write(notebook, output)  # type: ignore[no-untyped-call]
    return notebook


@contextmanager
def one_kernel() -> Iterator[None]:
    """Let the notebooks executed meanwhile share a kernel; see `anonvma.engine.one_kernel`."""
    with _temporary_files_swept(), engine.one_kernel():
        yield


_swept = False


@contextmanager
def _temporary_files_swept() -> Iterator[None]:
    """Have what Jupyter leaves when it is killed where the next run sweeps it.

    It keeps the key to the kernel in a temporary file of a name that says nothing.
    """
    global _swept
    if _swept:  # those of a kernel that others go on with
        yield
        return
    before = tempfile.tempdir
    with scratch.directory("kernel") as directory:
        tempfile.tempdir, _swept = str(directory), True
        try:
            yield
        finally:
            tempfile.tempdir, _swept = before, False


def _literal(path: Path) -> str:
    """Return a path that papermill, which takes it for a format string, leaves as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")


def text_of_cell(notebook: nbformat.NotebookNode, tag: str) -> str:
    """Return what the cell with a tag printed."""
    written = io.StringIO()
    for cell in notebook.cells:
        if tag in cell.metadata.get("tags", []):
            for output in cell.outputs:
                written.write(output.get("text", ""))
    return written.getvalue().strip()
