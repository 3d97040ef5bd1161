"""Make docs/pictures/page.png: the page in a real browser, with a text that the bundled model really writes.

    ayllu serve &
    python docs/pictures/page.py http://127.0.0.1:8000
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

OUT = Path(__file__).with_name("page.png")
SETTINGS = {"Seed": "5", "Most tokens": "60", "Temperature": "0.7"}


def show(page: Page) -> None:
    """A text, its tokens, and what else might have come."""
    page.get_by_role("button", name="Settings", exact=True).click()
    for label, value in SETTINGS.items():
        page.locator("#drawer").get_by_label(label, exact=True).first.fill(value)
    page.get_by_role("button", name="Close the settings").click()
    page.get_by_role("button", name="The king said to his wife,").click()
    page.locator(".stats").filter(has_text="seed").wait_for(timeout=120_000)
    page.get_by_role("button", name="Tokens", exact=True).click()
    page.locator(".token").nth(14).click(timeout=60_000)
    page.wait_for_timeout(500)


if __name__ == "__main__":
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1080, "height": 800}, locale="en-US")
        page.goto(sys.argv[1])
        show(page)
        page.screenshot(path=OUT)
        browser.close()
    print(OUT)
