"""A page in headless Chromium, and everything that it complained of or asked the network for."""

import shutil
from contextlib import contextmanager

import pytest
from patience import LONG

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def opened(file, width=1280, height=900, scheme="light", own_folder=None):
    """Yields the page. At the end: no message on the console, no request but for the file itself (or for files in
    `own_folder`), and nothing wider than the window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
        page.set_default_timeout(1000 * LONG)
        complaints, requests = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        yield page
        assert complaints == []
        asked = [url for url in requests if not url.startswith("data:")]
        assert all(url.startswith(own_folder.as_uri()) for url in asked) if own_folder else asked == [file.as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        browser.close()
