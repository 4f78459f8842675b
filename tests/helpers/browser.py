# SPDX-License-Identifier: GPL-2.0-only
"""A real browser: Debian's chromium, headless, driven by selenium and its own driver.

Import the fixtures `browser` and `chromium` to use it. Nothing is downloaded: the driver is the
distribution's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from waiting import PATIENCE

__all__ = ["browser", "chromium", "complaints", "network_off", "requests_of"]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own, which keeps its console and its requests."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with chromedriver (Debian: chromium, chromium-driver)")
    options = Options()
    options.binary_location = chromium
    for word in (
        "--headless=new",
        "--no-sandbox",  # tests may run as root
        "--disable-gpu",
        "--disable-dev-shm-usage",  # /dev/shm is small in containers
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium') / 'profile'}",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    started.set_page_load_timeout(PATIENCE)
    try:
        yield started
    finally:
        started.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """A new tab of it, which alone knows what is emulated and switched off in it."""
    first = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    complaints(chromium), requests_of(chromium)  # of the tab before
    yield chromium
    chromium.close()
    chromium.switch_to.window(first)


def network_off(browser: webdriver.Chrome) -> None:
    """Take the network away from the tab."""
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )


def requests_of(browser: webdriver.Chrome) -> list[str]:
    """What the tab has asked for since it was last asked, addresses with data in them cut short."""
    found = []
    for entry in browser.get_log("performance"):  # type: ignore[no-untyped-call]
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(str(message["params"]["request"]["url"])[:200])
    return found


def complaints(browser: webdriver.Chrome) -> list[dict[str, Any]]:
    """What the console has said since it was last asked."""
    said: list[dict[str, Any]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return said
