# SPDX-License-Identifier: GPL-2.0-only
"""Parameters of a notebook: refuse one that does not exist.

papermill puts the parameters it is given into a cell of their own, after the notebook's
cell tagged ``parameters``, and only warns of a name that the notebook does not know. A
misspelt ``-p treads 8`` would so be a run with the default, believed to be another.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Sequence

from IPython.core.getipython import get_ipython

from anonvma.errors import ParameterError

__all__ = ["check", "check_cells"]

_INJECTED = "# Parameters\n"


def check() -> None:
    """Compare the parameters injected into this notebook with those it declares.

    Call it in the cell after the parameters. Without papermill there is nothing to compare.

    Raises
    ------
    ParameterError
        One sentence that names the unknown parameter and the nearest known one.
    """
    shell = get_ipython()
    if shell is not None:
        check_cells(shell.user_ns["In"])


def check_cells(cells: Sequence[str]) -> None:
    """Do what `check` does, for the cells executed so far, oldest first."""
    injected = [number for number, cell in enumerate(cells) if cell.startswith(_INJECTED)]
    if not injected:
        return
    known = _assigned(cells[injected[-1] - 1])
    for name in _assigned(cells[injected[-1]]):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}."
            raise ParameterError(f"this notebook has no parameter {name!r}: {hint}")


def _assigned(cell: str) -> list[str]:
    """Return the names that a cell assigns to, in order."""
    names = []
    for statement in ast.parse(cell).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names
