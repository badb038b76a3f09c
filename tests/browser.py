"""Opens pages in Debian's Chromium and checks them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# Name -> width and height of the window in pixels.
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
_CHROMIUM = shutil.which("chromium")
_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@contextlib.contextmanager
def launch() -> Iterator[Browser]:
    """Starts a browser; skips the test if none is installed."""
    if _CHROMIUM is None:
        pytest.skip("`chromium` is not on the path: install it (Debian: `apt-get install chromium`)")
    with sync_playwright() as playwright:
        # Playwright creates a new profile for each browser and deletes it afterwards.
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def visit(browser: Browser, file: Path, size: str) -> Iterator[Page]:
    """Opens a file, and fails the test if the browser reports a problem before it is closed.

    Problems are a message on the console, an error, a dialog, and a request for anything but the file and
    what the page itself holds.

    Args:
      browser: the browser.
      file: the HTML file.
      size: a key of SIZES.

    Yields:
      The open page.
    """
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height})
    problems: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    page.on("requestfailed", lambda failed: problems.append(failed.url))
    page.on("request", lambda sent: requests.append(sent.url))
    page.goto(file.as_uri())
    yield page
    page.close()
    assert problems == []
    own = ("data:", "blob:")
    assert {url.partition("#")[0] for url in requests if not url.startswith(own)} == {file.as_uri()}


def check_layout(page: Page) -> None:
    """Checks that all images have loaded and that nothing is wider than the page, `details` open or not."""
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") == page.evaluate("innerWidth")
        page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
