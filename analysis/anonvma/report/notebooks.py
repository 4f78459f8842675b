# SPDX-License-Identifier: GPL-2.0-only
"""Running the notebooks through papermill.

papermill and the notebook's kernel run where the user sits; only what a notebook asks a
target to do runs there.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from anonvma.base import bounded, paths
from anonvma.base.errors import NotebookError
from anonvma.base.steps import Tell
from anonvma.report import engine
from anonvma.report.engine import Refused
from anonvma.report.engine import one_kernel as one_kernel


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
        `anonvma.collect.preflight`. Else the sentence in which a cell failed; a NotebookError if
        that was not one of ours.
    """
    source = paths.root() / "notebooks" / f"{name}.ipynb"
    if name.endswith(".ipynb"):
        source = Path(name).resolve()
    if not source.exists():
        raise NotebookError(f"there is no notebook {name}: {source} is missing.")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    given = {key: value for key, value in parameters.items() if value is not None}
    try:
        notebook: nbformat.NotebookNode = papermill.execute_notebook(
            _read(source),
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
        raise NotebookError(engine.KERNEL_KILLED) from None
    except RuntimeError as error:  # of jupyter_client
        raise NotebookError(f"the kernel of notebook {name} did not start: {error}.") from None
    except NoSuchKernel as error:
        raise NotebookError(
            f"notebook {name} wants a kernel {error.name!r}, which is not installed here: "
            "'jupyter kernelspec list' names those that are."
        ) from None
    except nbformat.ValidationError as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise NotebookError(f"notebook {name} cannot be executed: {why}.") from None
    except OSError as error:
        where, why = error.filename or output, error.strerror or str(error)
        raise NotebookError(f"cannot write {where}: {why.rstrip('.')}.") from None
    # Again, without the paths of this machine that papermill writes down.
    for path in ("input_path", "output_path"):
        notebook.metadata.papermill[path] = None
    nbformat.write(notebook, output)  # type: ignore[no-untyped-call]
    return notebook


_LARGEST = 256 << 20


def _read(source: Path) -> nbformat.NotebookNode:
    """Read a notebook, which may be anybody's, and make sure that it can be executed."""
    try:
        text = bounded.regular(source, _LARGEST).decode()
        notebook: nbformat.NotebookNode = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
        kernel = notebook.metadata.get("kernelspec", {}).get("name")
        iter(notebook.cells)
    except OSError as error:
        raise NotebookError(f"cannot read {source}: {error.strerror}.") from None
    except (UnicodeError, nbformat.reader.NotJSONError, RecursionError):
        raise NotebookError(f"{source} is no notebook: it is not JSON.") from None
    except nbformat.NBFormatError as error:
        raise NotebookError(f"{source} cannot be read here: {error}.") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise NotebookError(f"{source} is no notebook: it has not what one has.") from None
    if not kernel:
        raise NotebookError(
            f"{source} does not say which kernel it wants: open it in JupyterLab, choose one, and "
            "save it."
        )
    return notebook


def _literal(path: Path) -> str:
    """Return a path that papermill, which takes it for a format string, leaves as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")


def result(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Return what a notebook hands to whoever executed it; see `anonvma.report.output.result`."""
    from anonvma.report.output import RESULT  # with pandas, which executing does without

    found: dict[str, Any] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            found |= output.get("data", {}).get(RESULT, {})
    return found
