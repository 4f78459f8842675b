# SPDX-License-Identifier: GPL-2.0-only
"""The explorer: a run or the live machine, narrowed down with native controls, all views linked.

`Explorer` is what notebooks/explore.ipynb shows. Its controls are in `Explorer.controls` by name;
setting the ``value`` of one does what a hand at the screen does. Every change goes one way:

    control -> `Filter` -> `Selection` -> the views that can be seen

and a view that cannot be seen is drawn when its tab is opened. Everything is one of the browser's
own controls, so it is reached by Tab and changed by the arrow keys.

What goes wrong is said in the view, in the sentence of the error, and leaves what was shown.
"""

from __future__ import annotations

import atexit
import html
import keyword
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import ipywidgets
from IPython.core.getipython import get_ipython

from anonvma.base import paths
from anonvma.base.errors import SelectionError
from anonvma.explore import census_reader, controls, live
from anonvma.explore import export as files
from anonvma.explore.controls import LINKS, LIVE, NONE, ROWS, SIZES
from anonvma.explore.filter import Filter
from anonvma.explore.panel import EXPORT, Panel
from anonvma.explore.selection import Vmas
from anonvma.explore.source import Source, source_of_run
from anonvma.explore.view import Shown
from anonvma.run import runs


class Explorer(Panel):
    """Controls and views over one source of VMAs, and perhaps a second one beside it.

    Parameters
    ----------
    run : str or Path, optional
        A run, as `anonvma.run.runs.find` takes it; or `LIVE`.
    other : str or Path, optional
        A second run, to be compared.
    where : str
        The target that is watched live.

    Attributes
    ----------
    controls : dict of Widget
    shown : Shown or None
        What the views show; None as long as nothing could be opened.
    trouble : str
        What went wrong last; empty when all is well.
    watch : Watch or None
    widget : Widget
        All of it.
    """

    _latest: ClassVar[live.Watch | None] = None

    def __init__(
        self, run: str | Path | None = None, other: str | Path | None = None, where: str = "local"
    ) -> None:
        if Explorer._latest is not None:  # the cell was run again: nobody can stop that one now
            Explorer._latest.stop()
        super().__init__()
        self._where = where
        self._observer: live.Observer | None = None
        self._listen()
        if run is not None:
            self.open(run)
        if other is not None:
            self.compare(other)

    # ---- the controls ----

    def _listen(self) -> None:
        def on(name: str, react: Callable[[], None]) -> None:
            control = self.controls[name]
            if isinstance(control, ipywidgets.Button):
                control.on_click(lambda _: self._react(react))
            else:
                control.observe(lambda _: self._react(react), "value")

        for name in ("process", "origin", "state", "size", "having", "lacking", "from", "to"):
            on(name, self._narrow)
        for name in ("key", "descending", "page"):
            on(name, self._list_rows)
        on("run", self._choose_run)
        on("directory", lambda: self._choose(self.controls["directory"].value.strip() or NONE))
        on("repeat", self._choose_repeat)
        on("other", lambda: self._choose_other(self.controls["other"].value))
        on("clear", self._clear)
        on("row", self._look_at_row)
        on("none", lambda: self.look_at(None))
        on("axis", self._refresh)
        on("trace", self._trace)
        on("start", self.start)
        on("stop", self.stop)
        on("export", self._export)
        for tab in LINKS:
            on(f"to {tab}", lambda tab=tab: self.go_to(tab))  # type: ignore[misc]
        self.tabs.observe(lambda _: self._react(self._draw), "selected_index")

    # ---- choosing what is explored ----

    def open(self, run: str | Path) -> None:
        """Open a run, or watch the live machine; what is wrong is said in the view."""
        self._react(lambda: self._choose(str(run)))

    def compare(self, run: str | Path) -> None:
        """Set another run beside it; what is wrong is said in the view."""
        trouble = self.trouble
        self._react(lambda: self._choose_other(str(run)))
        self.trouble = self.trouble or trouble
        with self._silently():
            if str(run) in self.controls["other"].options:
                self.controls["other"].value = str(run)
        self._say()

    def _choose_run(self) -> None:
        with self._silently():
            self.controls["directory"].value = ""
        self._choose(self.controls["run"].value)

    def _choose(self, name: str) -> None:
        if name == NONE:
            return
        if name == LIVE:
            self.go_to("live")
            self.start()
            return
        run = runs.find(name)
        self._pause()
        self._take(source_of_run(run))
        known = census_reader.repeats_of(run)
        with self._silently():
            self.controls["repeat"].options = [(f"{n} of {len(known)}", n) for n in known]
            self.controls["repeat"].value = known[-1]

    def _choose_repeat(self) -> None:
        shown, repeat = self._open(), self.controls["repeat"].value
        if shown.source.run is not None and repeat is not None:
            self._take(source_of_run(shown.source.run, repeat))

    def _choose_other(self, name: str) -> None:
        other = None if name == NONE else source_of_run(runs.find(name))
        self._open().other = other
        self._refresh()

    def _take(self, source: Source) -> None:
        """Show another source, with as much of the filter as still means something there."""
        before = self.shown
        chosen = _same_vma(before, source.vmas) if before and source.run is None else None
        with self._silently():
            self._offer(source.vmas)
            offered = self.controls["run"].options
            self.controls["run"].value = source.name if source.name in offered else NONE
            if source.run is None:
                self.controls["repeat"].options = []
                self.controls["directory"].value = ""
        found = source.vmas.select(self.filter())
        self.shown = Shown(source, found, chosen, before.other if before else None)
        if before:
            self.shown.compressed = before.compressed
        self._list_rows()

    def _offer(self, vmas: Vmas) -> None:
        """Fill the lists of the filter with what there is."""
        for name, options in controls.offers(vmas).items():
            control = self.controls[name]
            kept = [v for v in control.value if v in {value for _, value in options}]
            control.options = options
            control.value = kept

    # ---- narrowing ----

    def filter(self) -> Filter:
        """Return what the controls ask for.

        Raises
        ------
        SelectionError
            When an address is none.
        """
        c = self.controls
        smallest, largest = c["size"].value
        low, high = (controls.address(c[name].value, name) for name in ("from", "to"))
        within = None
        if low is not None or high is not None:
            within = (low or 0, (1 << 64) - 1 if high is None else high)
        return Filter(
            processes=tuple(c["process"].value),
            origins=tuple(c["origin"].value),
            states=tuple(c["state"].value),
            smallest=None if smallest == SIZES[0] else smallest,
            largest=None if largest == SIZES[-1] else largest,
            having=tuple(c["having"].value),
            lacking=tuple(c["lacking"].value),
            within=within,
        )

    def clear(self) -> None:
        """Ask for nothing any more."""
        self._react(self._clear)

    def _clear(self) -> None:
        with self._silently():
            for name in ("process", "origin", "state", "having", "lacking"):
                self.controls[name].value = ()
            self.controls["size"].index = (0, len(SIZES) - 1)
            self.controls["from"].value = self.controls["to"].value = ""
        self._narrow()

    def _narrow(self) -> None:
        shown = self._open()
        shown.selection = shown.source.vmas.select(self.filter())
        if shown.chosen is not None and not shown.selection.mask[shown.chosen]:
            shown.chosen = None
        with self._silently():
            self.controls["page"].value = 1
        self._list_rows()

    # ---- the list of VMAs ----

    def _list_rows(self) -> None:
        """Fill the list of VMAs, and draw what depends on it."""
        shown = self._open()
        shown.key = controls.KEYS[self.controls["key"].value]
        shown.descending = self.controls["descending"].value
        with self._silently():
            page = self.controls["page"]
            page.max = max((len(shown.selection) + ROWS - 1) // ROWS, 1)
            begin = (page.value - 1) * ROWS
            rows = shown.selection.rows(shown.key, shown.descending, begin, ROWS)
            options = controls.row_options(rows)
            row = self.controls["row"]
            row.options = options
            known = {place for _, place in options}
            row.value = shown.chosen if shown.chosen in known else None
        self._refresh()

    def _look_at_row(self) -> None:
        place = self.controls["row"].value
        if place is not None:
            self.look_at(int(place))

    def look_at(self, place: int | None) -> None:
        """Look at one VMA, given its place in the census, or at none."""
        self._open().chosen = place
        with self._silently():
            values = [value for _, value in self.controls["row"].options]
            self.controls["row"].value = place if place in values else None
        self._refresh()

    # ---- live ----

    def start(self) -> None:
        """Watch the live machine.

        Raises
        ------
        AnonvmaError
            When it cannot be: no privilege, or no such process.
        """
        self._pause()
        pids = controls.pids(self.controls["pids"].value)
        if self._observer is None:
            self._observer = live.Observer(self._where)
            atexit.register(self._observer.close)
        observer = self._observer
        self.watch = live.Watch(
            lambda: observer.census(pids), float(self.controls["every"].value), self._told
        )
        self.controls["start"].disabled, self.controls["stop"].disabled = True, False
        Explorer._latest = self.watch
        self.watch.start()

    def stop(self) -> None:
        """Stop watching; what was seen last stays."""
        self._pause()
        self._refresh()

    def _pause(self) -> None:
        if self.watch is not None:
            self.watch.stop()
        self.controls["start"].disabled, self.controls["stop"].disabled = False, True

    def _told(self, watch: live.Watch) -> None:
        """Take in what the watch has seen; called in its thread."""
        # Whoever stops the watch waits for this thread, and may hold the lock meanwhile.
        while not self._lock.acquire(timeout=0.05):
            if watch.stopped:
                return
        try:
            if watch is self.watch and (watch.trouble or not watch.stopped):
                self._show_what_was_seen(watch)
        finally:
            self._lock.release()

    def _show_what_was_seen(self, watch: live.Watch) -> None:
        if watch.trouble:
            self.controls["start"].disabled, self.controls["stop"].disabled = False, True
            self._stale.add("live")
            self._draw()
            self._say_trouble(watch.trouble)
        elif watch.census is not None and watch.vmas is not None:
            header = watch.census.header
            where = f"a census of the live machine, Linux {header['release']} ({header['arch']})"
            source = Source(LIVE, where, watch.vmas)
            self._react(lambda: self._take(source))

    def _trace(self) -> None:
        """Trace the faults of the chosen process of the live machine."""
        shown = self._open()
        if shown.source.run is not None:
            raise SelectionError("a run has been traced already, or not at all: this is for live.")
        chosen = self.controls["process"].value
        if len(chosen) != 1:
            raise SelectionError("choose one process in the filter: it is that one's faults.")
        if self._observer is None:
            raise SelectionError("the live machine is not open: press 'Start' in the tab Live.")
        self._pause()
        seconds = float(self.controls["trace seconds"].value)
        self._status.value = f"<p role='status'>Tracing for {seconds:g} s ...</p>"
        tables = self._observer.trace(int(chosen[0]), seconds)
        taken = self._observer.census()
        vmas = Vmas(taken.census.vmas, int(taken.census.header["page_size"]))
        self._take(Source(LIVE, shown.source.where, vmas, tables=tables))

    # ---- export ----

    def _export(self) -> None:
        c = self.controls
        said = self.export(c["variable"].value, c["name"].value, c["into"].value)
        self._views["export"].value = said

    def export(self, variable: str, name: str, into: str) -> str:
        """Put the selection into the notebook's namespace and into files; what was done, as HTML.

        Parameters
        ----------
        variable : str
            The name of the DataFrame.
        name : str
            Of the files, without ending: Parquet, CSV, and a paragraph for a mail.
        into : str
            A directory; a relative one is one in the directory of your runs.

        Raises
        ------
        SelectionError
            When a name is none, or a file cannot be written.
        """
        shown = self._open()
        if not variable.isidentifier() or keyword.iskeyword(variable):
            raise SelectionError(f"{variable!r} cannot be the name of a variable.")
        written = list(files.write(shown.selection, shown.source.where, name, paths.runs() / into))
        shell = get_ipython()
        if shell is not None:
            shell.user_ns[variable] = shown.selection.frame()
        where = "".join(f"<li><code>{html.escape(str(path))}</code></li>" for path in written)
        return (
            f"<p>{len(shown.selection):,} VMAs are in <code>{html.escape(variable)}</code>, a "
            f"DataFrame of this notebook, and in</p><ul>{where}</ul><p>{EXPORT}</p>"
            f"<pre>{html.escape(self.paragraph())}</pre>"
        )


def _same_vma(shown: Shown, vmas: Vmas) -> int | None:
    """Find the VMA that is looked at in another census, by its process and start."""
    if shown.chosen is None:
        return None
    row = shown.chosen_row()
    same = (vmas.numbers("tgid") == row["tgid"]) & (vmas.numbers("start") == row["start"])
    found = same.nonzero()[0]
    return int(found[0]) if len(found) else None
