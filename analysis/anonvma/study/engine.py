# SPDX-License-Identifier: GPL-2.0-only
"""The engine that papermill finds by the entry point ``papermill.engine``.

papermill imports this while it is itself being imported, so nothing that needs papermill is
imported here before a notebook is executed.
"""

from __future__ import annotations

from typing import Any

import nbformat
from papermill.engines import NBClientEngine, papermill_engines


class Engine(NBClientEngine):  # type: ignore[misc]
    """`anonvma.report.engine.Engine`, with the check of our own notebooks' parameters."""

    @classmethod
    def execute_notebook(cls, *words: Any, **more: Any) -> nbformat.NotebookNode:
        """Execute a notebook as papermill asks its engines to."""
        from anonvma.report import engine

        return engine.Engine.execute_notebook(*words, **more, check=_check)


def _check(notebook: nbformat.NotebookNode) -> None:
    """Refuse a parameter that does not exist, is of another type, or would be ignored."""
    from anonvma.study import parameters

    parameters.check_notebook(notebook, notebook.metadata.papermill.get("parameters", {}))


papermill_engines.register(None, Engine)
