# SPDX-License-Identifier: GPL-2.0-only
"""Parameters of a notebook: refuse one that does not exist, is of another type, or is ignored.

papermill puts the parameters it is given into a cell of their own, after the notebook's cell
tagged ``parameters``, and only warns of a name that the notebook does not know. A misspelt
``-p treads 8`` would so be a run with the default, believed to be another.

What a notebook declares is read from that cell: ``threads: int = 2  # tasks``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anonvma.base.errors import ParameterError
from anonvma.base.nearest import hint
from anonvma.collect import preflight

if TYPE_CHECKING:
    import nbformat

_INJECTED = "# Parameters\n"


def check() -> None:
    """Compare the parameters injected into this notebook with those it declares.

    Call it in the cell after the parameters. Without papermill there is nothing to compare. A
    notebook that calls it is also checked before its kernel starts (`anonvma.study.engine`), and
    shows tables as reports do (`anonvma.report.display`).

    Raises
    ------
    ParameterError
        One sentence that names the parameter, and the nearest known one.
    """
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is not None:
        from anonvma.report import display

        display.install()
        check_cells(shell.user_ns["In"])


def check_cells(cells: Sequence[str]) -> None:
    """Do what `check` does, for the cells executed so far, oldest first."""
    injected = [number for number, cell in enumerate(cells) if cell.startswith(_INJECTED)]
    if injected:
        given = {name: value for name, (_, value) in _declared(cells[injected[-1]]).items()}
        _check(cells[injected[-1] - 1], given)


def check_notebook(notebook: nbformat.NotebookNode, given: Mapping[str, Any]) -> None:
    """Check what a notebook is given before its kernel starts, and what that stands for.

    Raises
    ------
    AnonvmaError
        One sentence: a parameter that it does not have, an impossible value, no such run.
    """
    tagged = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    declaring = next(tagged, None)
    if declaring is not None and given:
        preflight.notebook(_check(declaring.source, given), list(given))


def _check(declaring: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Compare names and types, and return every parameter's value."""
    declared = _declared(declaring)
    for name, value in given.items():
        if name not in declared:
            told = hint(name, declared, f"it has {', '.join(declared)}.")
            raise ParameterError(f"this notebook has no parameter {name!r}: {told}")
        kind, _ = declared[name]
        if kind in _KINDS and value is not None:
            fits, wanted = _KINDS[kind]
            if not fits(value):
                raise ParameterError(f"{name} is {value!r}: {wanted.format(name=name)}.")
    return {name: value for name, (_, value) in declared.items()} | dict(given)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# By the word after the name's colon: whether a value is one, and what is said of one that is not.
# papermill makes a number of what looks like one, so a text such as a size may come as a number.
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (
        lambda value: isinstance(value, int) and not isinstance(value, bool),
        "a whole number is needed",
    ),
    "float": (_is_number, "a number is needed"),
    "str": (lambda value: isinstance(value, str) or _is_number(value), "a text is needed"),
    "bool": (lambda value: isinstance(value, bool), "True or False is needed"),
    "list": (
        lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
        "a list of texts is needed, such as -y '{name}: [first, second]'",
    ),
}


def _declared(cell: str) -> dict[str, tuple[str, Any]]:
    """Return what a cell assigns, in order: the type that is written there, and the value."""
    found: dict[str, tuple[str, Any]] = {}
    for statement in ast.parse(cell).body:
        kind = ""
        if isinstance(statement, ast.AnnAssign):
            targets, kind = [statement.target], ast.unparse(statement.annotation)
        elif isinstance(statement, ast.Assign):
            targets = statement.targets  # type: ignore[assignment]
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name):
                found[target.id] = (kind.partition("[")[0], _literal(statement.value))
    return found


def _literal(value: ast.expr | None) -> Any:
    """Return the value that is written down; None for what is worked out."""
    try:
        return None if value is None else ast.literal_eval(value)
    except ValueError:
        return None
