"""A real browser against a real server. Chromium comes from the system (Debian: apt-get install chromium)."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from server.live import Live, serving

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
BEEPS = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for a file's tests. While Playwright runs, asyncio.run works nowhere else in this process."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'ayllu[test]'")
    if EXECUTABLE is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    playwright.expect.set_options(timeout=30_000)
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=EXECUTABLE, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def speaking(browser) -> Iterator[Any]:
    """`speaking(url)` gives a page in a Chromium whose microphone beeps."""
    chromium = browser.browser_type.launch(executable_path=EXECUTABLE, args=[*FLAGS, *BEEPS])

    def open_(url: str, ready: Any = None) -> Any:
        page = chromium.new_context(permissions=["microphone"], locale="en-US").new_page()
        if ready:
            ready(page)
        page.goto(url)
        return page

    yield open_
    chromium.close()


@pytest.fixture(scope="session")
def server(chat_checkpoint) -> Iterator[Live]:
    """A tiny chat model of random weights, under two names."""
    with serving(chat_checkpoint, aliases=("other",)) as live:
        yield live


@pytest.fixture
def opened(browser, server) -> Iterator[Any]:
    """`opened(url=..., width=..., ...)` gives a page in a context of its own; what the page logs as an error fails."""
    contexts, errors = [], []

    def open_(url: str = server.url, *, width: int = 1200, height: int = 800, waits: bool = True,
              ready: Any = None, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height},
                                      **{"locale": "en-US", "accept_downloads": True, **options})
        context.set_default_timeout(120_000)          # beside other tests on a busy machine
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)
        if ready:
            ready(page)
        page.goto(url)
        if waits:
            page.locator(".welcome .beginning:enabled").first.wait_for()
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def page(opened) -> Any:
    """The page at the width of a desktop, in English, connected."""
    return opened()
