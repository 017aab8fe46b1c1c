"""Take the pictures in docs/ from a running Dagster UI: `make screenshots`.

Needs a Chromium: Debian's package `chromium`, or another whose path CHROMIUM names.
"""

import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import psycopg
from playwright.sync_api import Page, sync_playwright
from rich.console import Console

from stack.demo import await_nothing_pending, running_demo_stack
from stack.home import Home
from stack.spew import spew, tasks_of
from stack.standin.market import WELL_KNOWN_COINS

DOCS = Path(__file__).parent
PAGE_TIMEOUT = 60_000  # milliseconds


def main() -> None:
    """Run a stack, send it some coins, and photograph what its user sees."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("No Chromium: install the package chromium, or name another with CHROMIUM")
    console = Console()
    directory = Path(tempfile.mkdtemp(prefix="coins-"))
    try:
        with running_demo_stack(Home(directory)) as state:
            tasks = tasks_of(WELL_KNOWN_COINS, size=4, fresh=True, chance=random.Random(1))
            spew(f"{state['receiver_url']}/coins", tasks=tasks, count=10, delay=0.2, console=console)
            with psycopg.connect(state["database_url"], autocommit=True) as connection:
                await_nothing_pending(connection, console=console)
            photograph(str(state["ui_url"]), chromium=chromium)
    finally:
        shutil.rmtree(directory)


def photograph(ui_url: str, *, chromium: str) -> None:
    """Save a picture of each page that the docs show."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
        )
        page = browser.new_page(viewport={"width": 1600, "height": 520})
        page.set_default_timeout(PAGE_TIMEOUT)
        page.goto(f"{ui_url}/runs")
        page.get_by_text("Success").first.wait_for()
        page.goto(f"{ui_url}/asset-groups")
        page.get_by_text("Hide navigation").click()
        page.get_by_text("marts").first.wait_for()
        page.keyboard.press("Alt+e")  # expand all groups
        page.get_by_text("exchanges_with_x").first.wait_for()
        settle(page)
        page.screenshot(path=DOCS / "lineage.png")
        browser.close()


def settle(page: Page) -> None:
    """Wait until the page has stopped loading and drawing."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)


if __name__ == "__main__":
    main()
