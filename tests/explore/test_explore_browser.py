# SPDX-License-Identifier: GPL-2.0-only
"""JupyterLab as `anonvma lab` starts it, driven by a real browser.

Opens the explorer's notebook, runs it, changes each control, follows links between views, watches
the live machine and exports; and looks at what was started: whose it is, and where it listens.
Screenshots are left in build/screenshots.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ordinary
import pandas as pd
import pytest
from browser import chromium
from jupyter_client.blocking.client import BlockingKernelClient
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select
from waiting import PATIENCE, until

__all__ = ["chromium"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]

# What the explorer opens on, as it was last recorded.
CLASSES = pd.read_parquet(ROOT / "data/recorded/specimens/census.parquet")["class"]
EVERY, ZERO, UNTOUCHED = (
    len(CLASSES),
    int((CLASSES == "zero-page").sum()),
    int((CLASSES == "untouched").sum()),
)

pytestmark = [pytest.mark.usefixtures("build"), pytest.mark.xdist_group("lab")]


class Lab(NamedTuple):
    process: subprocess.Popen[str]
    address: str
    token: str
    runs: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """`anonvma lab`, as an ordinary user whoever runs the tests."""
    if os.geteuid() != 0:
        yield from started([], dict(os.environ), tmp_path_factory.mktemp("lab"))
        return
    with ordinary.capable(ROOT / "build") as directory:
        place = tmp_path_factory.mktemp("shown")
        place.chmod(0o700)
        environment = ordinary.environment(directory)
        become = ordinary.becoming(place)
        yield from started(become, environment, tmp_path_factory.mktemp("lab"))


def started(become: list[str], environment: dict[str, str], place: Path) -> Iterator[Lab]:
    log = place / "log"
    words = [sys.executable, "-m", "anonvma", "lab", "--no-browser", "--port", str(free_port())]
    words = [*become, *words, "--", "--LabApp.expose_app_in_browser=True"]
    with log.open("w") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env=environment, text=True)
        try:
            address = re.compile(r"(http://127\S+?)/lab\S*\?token=(\w+)")
            until(lambda: process.poll() is not None or address.search(log.read_text()))
            found = address.search(log.read_text())
            assert found, log.read_text()
            (server,) = children(process.pid)
            runs = variable(server, "ANONVMA_RUNS") or str(ROOT / "data" / "runs")
            yield Lab(process, found[1], found[2], Path(runs))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text().split()]


def variable(pid: int, name: str) -> str | None:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    found = [pair for pair in pairs if pair.startswith(f"{name}=".encode())]
    return found[0].decode().partition("=")[2] if found else None


# ---- driving it ----


class Page:
    """The notebook in the browser."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser
        self.pictures = ROOT / "build" / "screenshots"
        self.pictures.mkdir(parents=True, exist_ok=True)

    def until(self, what: str, condition: Callable[[], Any]) -> Any:
        """Wait until something is so."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if found := condition():
                    return found
            except (StaleElementReferenceException, WebDriverException):
                pass  # it is being drawn anew
            if time.monotonic() > deadline:
                self.picture("failed")
                raise AssertionError(f"not within {PATIENCE:.0f} s: {what}; {self.said()}")
            time.sleep(0.1)

    def picture(self, name: str) -> None:
        self.browser.save_screenshot(str(self.pictures / f"explore-{name}.png"))

    def find(self, control: str, inside: str = "") -> WebElement:
        """A control by its name, brought into sight."""
        selector = f".anonvma .anonvma-{control.replace(' ', '-')} {inside}"

        def visible() -> WebElement | None:
            found = self.browser.find_elements(By.CSS_SELECTOR, selector.strip())
            if found:
                self.browser.execute_script(
                    "arguments[0].scrollIntoView({block: 'center'})", found[0]
                )
            return found[0] if found and found[0].is_displayed() else None

        sighted: WebElement = self.until(f"there is {selector}", visible)
        return sighted

    def said(self) -> str:
        """What stands above the controls."""
        found = self.browser.find_elements(By.CSS_SELECTOR, ".anonvma-said, .anonvma-trouble")
        # Its text, though it may be scrolled out of sight, where a browser renders nothing.
        return str(found[0].get_attribute("textContent")) if found else "(nothing is said)"

    def until_said(self, pattern: str) -> None:
        self.until(f"{pattern!r} is said", lambda: re.search(pattern, self.said()))

    def view(self) -> WebElement:
        """The view that can be seen."""
        views = self.browser.find_elements(By.CSS_SELECTOR, ".anonvma .anonvma-view")
        return next(view for view in views if view.is_displayed())

    def until_shown(self, pattern: str) -> None:
        self.until(f"{pattern!r} is shown", lambda: re.search(pattern, self.view().text))

    def choose(self, control: str, *texts: str) -> None:
        """Choose these lines of a list, each known by how it begins."""

        # Few questions to the browser: a list of hundreds of processes is made anew meanwhile.
        def done() -> bool:
            select = self.find(control, "select")
            lines = [
                select.find_elements(
                    By.XPATH, f".//option[starts-with(translate(., '\u00a0', ' '), '{text}')]"
                )
                for text in texts
            ]
            if not all(lines):  # not yet
                return False
            wanted = [found[0] for found in lines]
            if select.get_attribute("multiple"):
                for chosen in select.find_elements(By.CSS_SELECTOR, "option:checked"):
                    if chosen not in wanted:
                        chosen.click()  # no more
            for line in wanted:
                if not line.is_selected():
                    line.click()
            return True

        self.until(f"{control} offers {texts}", done)

    def type(self, control: str, inside: str, *keys: str) -> None:
        """Type into a control, which has the focus then: all of it is reached by keyboard."""

        def done() -> bool:
            element = self.find(control, inside)
            if not element.is_enabled():
                return False
            self.browser.execute_script("arguments[0].focus()", element)
            element.send_keys(*keys)
            return True

        self.until(f"{control} takes keys", done)

    def press(self, control: str) -> None:
        self.type(control, "", Keys.ENTER)

    def write(self, control: str, text: str) -> None:
        self.type(control, "input", Keys.CONTROL + "a" + Keys.NULL, Keys.DELETE, text, Keys.ENTER)

    def open_tab(self, title: str) -> None:
        def tab() -> WebElement:
            tabs = self.browser.find_elements(By.CSS_SELECTOR, ".anonvma [role=tab]")
            return next(tab for tab in tabs if tab.text.strip() == title)

        found = self.until(f"there is a tab {title}", tab)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()
        self.until(f"{title} is open", lambda: self.tab() == title)

    def tab(self) -> str:
        selector = ".anonvma [role=tab][aria-selected=true]"
        return str(self.browser.find_element(By.CSS_SELECTOR, selector).text.strip())

    def run_all(self, address: str) -> None:
        self.browser.set_window_size(1500, 1300)
        self.browser.get(address)
        ready = "return window.jupyterapp && document.querySelector('.jp-Notebook .jp-CodeCell')"
        self.until("the notebook is open", lambda: self.browser.execute_script(ready))
        # Without a kernel JupyterLab would ask which one to use.
        kernel = """
            const session = window.jupyterapp.shell.currentWidget.sessionContext.session;
            return session && session.kernel && session.kernel.status === "idle";"""
        self.until("its kernel is there", lambda: self.browser.execute_script(kernel))
        self.browser.execute_script(
            "window.jupyterapp.commands.execute('notebook:run-all-cells');"
            "window.jupyterapp.commands.execute('application:toggle-left-area');"
        )

    def reached_by_keyboard(self, presses: int) -> set[str]:
        """What has the focus in turn as Tab is pressed, from the first control on."""
        self.find("run", "select").click()
        self.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
        reached = set()
        script = """
            const control = document.activeElement.closest("[class*='anonvma-']");
            const tab = document.activeElement.getAttribute("role") === "tab";
            return tab ? "anonvma-tab" : control ? control.className : "";"""
        for _ in range(presses):
            reached |= set(re.findall(r"anonvma-([\w-]+)", self.browser.execute_script(script)))
            self.browser.switch_to.active_element.send_keys(Keys.TAB)
        return reached


def test_explorer_in_jupyterlab(lab: Lab, chromium: webdriver.Chrome) -> None:
    page = Page(chromium)
    page.run_all(f"{lab.address}/lab/tree/notebooks/explore.ipynb?token={lab.token}")
    page.until_said(rf"^{EVERY} of {EVERY} VMAs \(all\)")  # nothing is left narrowed down
    page.find("run")
    assert chromium.find_elements(By.CSS_SELECTOR, ".Toastify__toast") == []  # no question over it
    page.picture("01-opened")

    # Another run, repeat, and one to compare with.
    page.press("clear")
    page.choose("run", "small-allocs-mt")
    page.until_said(r"of 20,49\d VMAs \(all\)")
    page.choose("repeat", "2 of 5")
    page.until_shown(r"repeat 2 of 5")
    page.choose("other", "early-small-allocs-mt-1")
    page.open_tab("What differs")
    page.until_shown(r"B is small-allocs-mt on Linux 6\.12")
    page.until_shown(r"(?s)Beware.*bytes")
    page.picture("02-differs")

    # Back, and each control of the filter.
    page.choose("run", "specimens")
    page.until_said(rf"^{EVERY} of {EVERY}")
    page.choose("state", "zero-page", "untouched")
    page.until_said(rf"^{ZERO + UNTOUCHED} of {EVERY} VMAs \(in state zero-page or untouched\)")
    page.choose("origin", "private anonymous")
    page.until_said(r"of origin private anonymous, in state")
    process = Select(page.find("process", "select")).options[0].text
    page.choose("process", process)
    page.until_said(r"of one process")
    page.choose("having", "WRITE")
    page.until_said(r"with WRITE set")
    page.choose("lacking", "GROWSDOWN")
    page.until_said(r"without GROWSDOWN")
    for _ in range(3):
        page.type("size", ".noUi-handle-lower", Keys.ARROW_RIGHT)
    page.until_said(r"of at least 32 KiB")
    page.picture("03-narrowed")
    page.choose("origin", "stack guard")
    page.until_said(r"^Nothing is selected: no VMA meets every condition")
    page.picture("04-nothing")
    page.press("clear")
    page.until_said(rf"^{EVERY} of {EVERY} VMAs \(all\)")

    # A row, and from it by the links.
    page.choose("state", "zero-page")
    page.open_tab("VMAs")
    page.choose("key", "zero pages")
    page.type("descending", "input", Keys.SPACE)
    page.until_shown(r"by zero, largest first")
    page.type("row", "select", Keys.ARROW_DOWN)
    page.until_shown(r"Looked at: VMA [0-9a-f]+-[0-9a-f]+ of process \d+ \(.*zero-page\)")
    start = re.findall(r"Looked at: VMA ([0-9a-f]+)-", page.view().text)[0]
    page.picture("05-row")
    page.press("to map")
    page.until("the address space is open", lambda: page.tab() == "Address space")
    page.until_shown(rf"The arrow points at VMA {start}-")
    page.picture("06-map")
    page.choose("axis", "to scale")
    page.until_shown(r"to scale")
    page.choose("axis", "compressed")
    page.write("from", start)
    page.until_said(r"in one range of addresses")
    page.write("from", "no address")
    page.until_said(r"an address in hexadecimal is needed")
    page.write("from", "")
    page.until_said(rf"^{ZERO} of {EVERY} VMAs \(in state zero-page\)")
    for link, title, told in (
        ("pages", "Pages", rf"VMA {start}-.*of 8 pages 8 are the zero page"),
        ("faults", "Faults", r"Matched by process and address: those in the VMA looked at"),
        ("call paths", "Call paths", r"apply_touch"),
    ):
        page.press("to vmas") if page.tab() == "Address space" else page.open_tab("VMAs")
        page.press(f"to {link}")
        page.until(f"{title} is open", lambda title=title: page.tab() == title)
        page.until_shown(told)
        page.picture(f"07-{link.replace(' ', '-')}")
    page.open_tab("VMAs")
    page.press("none")
    page.until("none is looked at", lambda: "Looked at" not in page.view().text)

    # What is no run says so, and leaves what was shown.
    page.write("directory", "/nonexistent")
    page.until_said(r"^there is no run '/nonexistent'")
    page.picture("08-no-run")

    export(page, lab)
    live(page)
    by_keyboard(page)
    on_a_phone(page)
    whose_and_where(lab)


def export(page: Page, lab: Lab) -> None:
    """Export: the files, and the variable in the very kernel of the notebook."""
    page.open_tab("Export")
    for control, text in (("variable", "taken"), ("name", "from-the-browser"), ("into", "ex")):
        page.write(control, text)
    page.press("export")
    page.until_shown(r"(?s)are in taken.*from-the-browser\.csv")
    page.picture("09-exported")
    files = lab.runs / "ex"
    frame = pd.read_parquet(files / "from-the-browser.parquet")
    assert len(frame) == len(pd.read_csv(files / "from-the-browser.csv")) == ZERO
    assert set(frame["state"]) == {"zero-page"}
    text = (files / "from-the-browser.txt").read_text()
    assert text.startswith(f"{ZERO} of {EVERY} VMAs") and max(map(len, text.splitlines())) <= 72
    said = in_kernel(lab, "print(len(taken), taken['zero'].sum())")
    assert said.split() == [str(ZERO), str(frame["zero"].sum())]
    shutil.rmtree(files)  # or it would be kept


def live(page: Page) -> None:
    """The live view counts on, and stops when it is told to."""
    page.open_tab("Live")
    page.write("every", "0.5")
    page.press("start")
    page.until_shown(r"Watching: [2-9] censuses.*VMAs")
    page.until_shown(r"Cost: the last census took [\d.]+ s and [\d.]+ s of a CPU; .* of one CPU")
    page.picture("10-live")
    page.press("stop")
    page.until_shown(r"Not watching any more")
    before = page.view().text
    time.sleep(2)  # four censuses' time; nothing may come
    assert page.view().text == before
    page.picture("11-stopped")
    trace(page)


# Maps a MiB, reads it and gives it back, until it is killed.
FAULTING = """
import mmap, time
while True:
    with mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        for page in range(0, 1 << 20, mmap.PAGESIZE):
            area[page]
        time.sleep(0.02)
"""


def trace(page: Page) -> None:
    """The faults of a process of the live machine, from the browser."""
    with subprocess.Popen([sys.executable, "-c", FAULTING]) as process:
        try:
            page.open_tab("Live")
            page.write("every", "60")  # one census is enough, for all that follows
            page.press("start")
            page.press("clear")
            page.choose("process", f"{process.pid} ")
            page.until_said(r"of one process")
            page.open_tab("Faults")
            page.until_shown(r"press 'Trace its faults'")
            page.write("trace-seconds", "1")
            page.press("trace")
            page.until_shown(r"traced page faults")
            page.picture("12-traced")
            page.open_tab("Call paths")
            page.until_shown(r"[Ff]ault")
        finally:
            process.kill()
    page.press("clear")


def by_keyboard(page: Page) -> None:
    """Every control that can be seen is reached by Tab, and so is every view."""
    page.open_tab("VMAs")
    reached = page.reached_by_keyboard(30)
    filters = {"run", "directory", "repeat", "other", "process", "origin", "state", "size"}
    flags = {"having", "lacking", "clear"}
    of_view = {"key", "descending", "page", "row", "to-map", "to-pages", "to-faults", "none"}
    assert filters | flags | of_view | {"tab"} <= reached
    tabs = page.browser.find_elements(By.CSS_SELECTOR, ".anonvma [role=tab][tabindex='0']")
    page.browser.execute_script("arguments[0].focus()", tabs[0])
    for _ in range(2):
        page.browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    page.browser.switch_to.active_element.send_keys(Keys.ENTER)
    page.until("another view is open", lambda: page.tab() != "VMAs")
    page.picture("13-by-keyboard")


# What reaches out of the explorer to the right, in no box that scrolls.
CLIPPED = """
    const root = document.querySelector('.anonvma'), edge = root.getBoundingClientRect().right + 1;
    const scrolls = (e) => e !== root && (/auto|scroll/.test(getComputedStyle(e).overflowX)
        || scrolls(e.parentElement));
    const beyond = (box) => box.width && box.right > edge;
    return [...root.querySelectorAll('*')]
        .filter((e) => beyond(e.getBoundingClientRect()) && !scrolls(e))
        .map((e) => String(e.className));"""


def on_a_phone(page: Page) -> None:
    """At 390 pixels the filter stands above the views, all of it, and nothing is clipped."""
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    column = page.browser.find_element(By.CSS_SELECTOR, ".anonvma .anonvma-filter")
    measures = "return [arguments[0].clientHeight, arguments[0].scrollHeight]"

    def whole() -> bool:
        shown, needed = page.browser.execute_script(measures, column)
        return bool(shown + 1 >= needed and page.view().location["y"] > column.location["y"])

    page.until("the filter is whole", whole)
    for title in ("At a glance", "VMAs", "Address space"):
        page.open_tab(title)
        page.until(f"{title} is in its box", lambda: page.browser.execute_script(CLIPPED) == [])
        page.picture(f"14-phone-{title.lower().replace(' ', '-')}")
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def kernel_of(lab: Lab) -> tuple[int, str]:
    """The notebook's kernel: its number, and its connection file."""
    (server,) = children(lab.process.pid)
    for pid in children(server):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        if "ipykernel_launcher" in words:
            return pid, words[words.index("-f") + 1]
    raise AssertionError("there is no kernel")


def in_kernel(lab: Lab, code: str) -> str:
    """Run a line in the notebook's kernel, and return what it prints."""
    client = BlockingKernelClient()
    client.load_connection_file(kernel_of(lab)[1])
    client.start_channels()
    printed: list[str] = []
    try:

        def hook(message: dict[str, Any]) -> None:
            printed.append(message["content"].get("text", ""))

        reply = client.execute_interactive(code, timeout=PATIENCE, output_hook=hook)
        assert reply["content"]["status"] == "ok", reply
    finally:
        client.stop_channels()
    return "".join(printed)


def whose_and_where(lab: Lab) -> None:
    """Neither the server nor the kernel is root's or has a capability; all listen on loopback."""
    (server,) = children(lab.process.pid)
    kernel, _ = kernel_of(lab)
    for pid in (server, kernel):
        status = Path(f"/proc/{pid}/status").read_text()
        uids = re.search(r"^Uid:\s+(.*)$", status, re.M)
        assert uids and "0" not in uids[1].split(), uids
        assert re.search(r"^CapEff:\s+0+$", status, re.M)
        assert re.search(r"^CapPrm:\s+0+$", status, re.M)
        listening = listened_on(pid)
        assert listening
        assert all(address == "127.0.0.1" for address in listening), listening


def listened_on(pid: int) -> list[str]:
    """The addresses that a process listens on, by TCP."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(descriptor))
        except OSError:  # closed meanwhile
            continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in links:
                address = words[1].partition(":")[0]
                packed = struct.pack("<I", int(address, 16)) if table == "tcp" else b""
                found.append(socket.inet_ntoa(packed) if packed else address)
    return found
