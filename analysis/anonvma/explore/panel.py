# SPDX-License-Identifier: GPL-2.0-only
"""The panel of the explorer: its controls, and the views of what is shown, drawn when seen.

What goes wrong is said in the view, in the sentence of the error, and leaves what was shown.
"""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets

from anonvma.base.errors import AnonvmaError, SelectionError
from anonvma.base.text import printable
from anonvma.explore import controls, export, live, selection, views_live
from anonvma.explore.controls import TABS
from anonvma.explore.view import Shown, View, as_html, display, summary
from anonvma.explore.views import VIEWS
from anonvma.run import catalogue

EXPORT = (
    "Export makes a DataFrame in this notebook, a Parquet file, a CSV file and a paragraph for a "
    "mail. The files name processes and paths as the census does; the paragraph names none:"
)


class Panel:
    """Controls, views, and what is shown in them; see `anonvma.explore.explorer.Explorer`."""

    def __init__(self) -> None:
        self.shown: Shown | None = None
        self.trouble = ""
        self.watch: live.Watch | None = None
        self._quiet = False
        self._lock = threading.RLock()  # the watching thread changes controls, too
        self._stale = set(TABS)
        self._status = ipywidgets.HTML()
        self._views = {name: ipywidgets.HTML() for name in TABS}
        for each in self._views.values():
            each.add_class("anonvma-view")
        self.controls = controls.make(catalogue.known())
        self.tabs = controls.tabs(self.controls, self._views)
        self.widget = controls.lay_out(self.controls, self._status, self.tabs)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """Show the controls where there are widgets, and elsewhere what they show, in words."""
        shown: dict[str, Any] = self.widget._repr_mimebundle_()
        said = self.summary()
        shown["text/plain"] = said
        shown["text/html"] = (
            f"<p>{html.escape(printable(said))}</p><p>The controls appear while the notebook runs; "
            "what follows shows each view without them.</p>"
        )
        return shown

    @property
    def selection(self) -> selection.Selection:
        """What is selected.

        Raises
        ------
        SelectionError
            When nothing is open.
        """
        return self._open().selection

    def summary(self) -> str:
        """Say in a sentence what is selected, or what is wrong."""
        if self.trouble:
            return self.trouble
        return summary(self.shown) if self.shown else "Nothing is open: choose a run."

    def twin(self, name: str) -> None:
        """Show a view without controls, as the output of a cell.

        Parameters
        ----------
        name : str
            One of `anonvma.explore.views.VIEWS`, or ``live``.

        Raises
        ------
        SelectionError
            When there is no such view, or nothing is open.
        """
        if name == "live":
            display(self._live_view())
        elif name in VIEWS:
            display(VIEWS[name](self._open()))
        else:
            raise SelectionError(
                f"there is no view {name!r}: choose {', '.join([*VIEWS, 'live'])}."
            )

    def paragraph(self) -> str:
        """Return a paragraph on the selection, ready for a mail."""
        shown = self._open()
        return export.paragraph(shown.selection, shown.source.where)

    def _open(self) -> Shown:
        if self.shown is None:
            raise SelectionError(self.trouble or "nothing is open: choose a run.")
        return self.shown

    def _react(self, react: Callable[[], None]) -> None:
        """Do what a control asks for; what goes wrong is said in the view."""
        with self._lock:
            if self._quiet:
                return
            try:
                self.trouble = ""
                react()
            except AnonvmaError as error:
                self.trouble = str(error)
            self._say()

    def _say_trouble(self, sentence: str) -> None:
        self.trouble = sentence
        self._say()

    @contextmanager
    def _silently(self) -> Iterator[None]:
        """Change controls without doing what they ask for."""
        with self._lock:
            before, self._quiet = self._quiet, True
            try:
                yield
            finally:
                self._quiet = before

    def go_to(self, tab: str) -> None:
        """Open a tab."""
        self.tabs.selected_index = list(TABS).index(tab)

    def _refresh(self) -> None:
        self._stale = set(TABS)
        seen = list(TABS)[self.tabs.selected_index or 0]
        for name, each in self._views.items():
            if name != seen:  # rather nothing for a moment than what is no longer so
                each.value = ""
        if self.shown is not None:
            self.shown.compressed = self.controls["axis"].value == "compressed"
        self._draw()

    def _draw(self) -> None:
        """Draw the view that can be seen, if it is not what it should be."""
        name = list(TABS)[self.tabs.selected_index or 0]
        if name not in self._stale:
            return
        if name == "live":
            self._views[name].value = as_html(self._live_view())
        elif name == "export":
            said = html.escape(self.paragraph()) if self.shown else ""
            self._views[name].value = f"<p>{EXPORT}</p><pre>{said}</pre>"
        elif self.shown is not None:
            self._views[name].value = as_html(VIEWS[name](self.shown))
        else:
            self._views[name].value = f"<p>{html.escape(self.summary())}</p>"
        self._stale.discard(name)

    def view(self, name: str) -> str:
        """Return what a view shows, as HTML."""
        self.go_to(name)
        self._draw()
        return str(self._views[name].value)

    def _say(self) -> None:
        kind = "anonvma-trouble" if self.trouble else "anonvma-said"
        role = "alert" if self.trouble else "status"
        said = html.escape(printable(self.summary()))
        self._status.value = f'<p class="{kind}" role="{role}">{said}</p>'

    def _live_view(self) -> View:
        if self.watch is None:
            return View("Live", ["Not watching: press 'Start'."])
        return views_live.live(self.watch)
