# SPDX-License-Identifier: GPL-2.0-only
"""What papermill executes our notebooks by: its own engine, and a check before the kernel starts.

A notebook is ours that calls ``parameters.check()``; any other is executed as if this were not
here. What is wrong is told in a sentence, within a second, and by the command ``papermill`` without
the frames of its own call stack: click shows an error of its own kind as one line. What is checked
is not known here: `anonvma.study.engine` adds it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import click
import nbformat
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from papermill.log import logger
from traitlets.config import Config

from anonvma.base import errors, scratch
from anonvma.base.errors import AnonvmaError, NotebookError
from anonvma.base.steps import ASKED, STEPS, Tell

MARK = "parameters.check()"
KERNEL_KILLED = (
    "the notebook's kernel was killed, perhaps for want of memory; nothing unfinished is kept."
)
_DEAD_KERNEL = 138  # papermill's own exit code for this


class Refused(click.ClickException):
    """One of our sentences, on its way through papermill.

    Attributes
    ----------
    error : AnonvmaError
    """

    def __init__(self, error: AnonvmaError, exit_code: int | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        code = error.exit_code if exit_code is None else exit_code
        vars(self)["exit_code"] = code  # click declares it of the class


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    """Takes what a notebook says of its progress out of its outputs."""

    tell: Tell | None = None

    def papermill_execute_cells(self) -> None:
        # A kernel that has executed another notebook forgets it.
        if self.code_cells_executed == 0 and _shared and _shared[0] is not self:
            self.wait_for_reply(self.kc.execute(_FORGET, silent=True, store_history=False))
        super().papermill_execute_cells()

    def execute_cell(self, cell: Any, index: int, *rest: Any, **more: Any) -> Any:
        if self.tell is not None:
            cells = len(self.nb.cells)
            self.tell(index / cells, f"cell {index + 1} of {cells}")
        return super().execute_cell(cell, index, *rest, **more)

    def process_message(self, message: dict[str, Any], *rest: Any, **more: Any) -> Any:
        data = message["content"].get("data", {})
        if STEPS in data:
            if self.tell is not None:
                self.tell(data[STEPS]["share"], data[STEPS]["what"])
            return None
        return super().process_message(message, *rest, **more)


class Engine(NBClientEngine):  # type: ignore[misc]
    """papermill's engine; of our notebooks it checks the parameters first."""

    @classmethod
    def execute_notebook(
        cls,
        nb: nbformat.NotebookNode,
        kernel_name: str,
        *rest: Any,
        check: Callable[[nbformat.NotebookNode], None],
        **more: Any,
    ) -> nbformat.NotebookNode:
        """Execute a notebook; what `check` refuses, before anything starts."""
        if not any(MARK in cell.source for cell in nb.cells):
            more.pop("tell", None)
            return cls._execute(nb, kernel_name, *rest, **more)
        try:
            check(nb)
        except AnonvmaError as error:
            raise Refused(error) from None
        try:
            done = cls._execute(nb, kernel_name, *rest, **more)
        except DeadKernelError:
            raise Refused(NotebookError(KERNEL_KILLED), _DEAD_KERNEL) from None
        except RuntimeError as error:  # of jupyter_client
            raise Refused(NotebookError(f"the notebook's kernel did not start: {error}.")) from None
        if failure := _failure(done):
            raise Refused(failure)
        return done

    @classmethod
    def _execute(cls, *words: Any, **more: Any) -> nbformat.NotebookNode:
        done: nbformat.NotebookNode = super().execute_notebook(*words, **more)
        return done

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *rest: Any, tell: Tell | None = None, **more: Any
    ) -> None:
        """Execute a notebook by papermill's client, but for what it says of its progress."""
        more.pop("input_path", None)
        timeout, patience = more.pop("execution_timeout", None), more.pop("start_timeout", 60)
        if _shared:
            more["km"] = _shared[0].km
        with (
            _asking_for_steps() if tell else contextlib.nullcontext(),
            temporary_files_swept(),
        ):
            client = _Client(
                nb_man,
                kernel_name=kernel_name,
                log=logger,
                timeout=timeout,
                startup_timeout=patience,
                config=Config({"KernelManager": {"transport": "ipc", "ip": _sockets}}),
                **{name: value for name, value in more.items() if value is not None},
            )
            client.tell = tell
            if _shared is not None:
                _shared.append(client)
            # By default a client ends the kernel that it started.
            client.execute(**({"cleanup_kc": False} if _shared is not None else {}))


_FORGET = "get_ipython().reset(new_session=True)"
_shared: list[_Client] | None = None
"""The clients that share a kernel, of which the first started it; None: each has its own."""


_sockets = ""
"""How the sockets of a kernel begin, by which we and it talk; empty where none may start."""


@contextlib.contextmanager
def temporary_files_swept() -> Iterator[None]:
    """Have what Jupyter leaves when it is killed where the next run sweeps it.

    It keeps the key to the kernel in a temporary file of a name that says nothing. The kernel's
    sockets are there, too: of TCP, jupyter_client chooses ports that another kernel, started at the
    same moment, may have bound before this one does.
    """
    global _sockets
    if _sockets:  # those of a kernel that others go on with
        yield
        return
    before = tempfile.tempdir
    with scratch.directory("kernel") as directory:
        # The address of a socket has 108 bytes (unix(7)), however long the directory's name is.
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        tempfile.tempdir, _sockets = str(directory), f"/proc/{os.getpid()}/fd/{handle}/socket"
        try:
            yield
        finally:
            tempfile.tempdir, _sockets = before, ""
            os.close(handle)


@contextlib.contextmanager
def one_kernel() -> Iterator[None]:
    """Let notebooks that are executed meanwhile share a kernel, each with a session of its own.

    To start one, and to import in it what all of them import, takes longer than most of them do.
    """
    global _shared
    clients: list[_Client] = []
    _shared = clients
    with temporary_files_swept():
        try:
            yield
        finally:
            _shared = None
            for client in reversed(clients):
                atexit.unregister(client._cleanup_kernel)
                if client.km is not None and client is clients[0]:
                    client._cleanup_kernel()
                elif client.kc is not None:
                    client.kc.stop_channels()


@contextlib.contextmanager
def _asking_for_steps() -> Iterator[None]:
    """Let a kernel that starts now know that somebody takes in what it says of its progress."""
    os.environ[ASKED] = "yes"
    try:
        yield
    finally:
        del os.environ[ASKED]


def ours(name: str, sentence: str) -> AnonvmaError | None:
    """Return an exception of a notebook's kernel as what it was there, if it was one of ours."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, AnonvmaError):
        return kind(sentence)
    return None


def _failure(notebook: nbformat.NotebookNode) -> AnonvmaError | None:
    """Return the failure of a cell, if it was one of ours."""
    outputs = [each for cell in notebook.cells for each in cell.get("outputs", [])]
    failures = (ours(each.ename, each.evalue) for each in outputs if "ename" in each)
    return next((failure for failure in failures if failure), None)
