"""Take the pictures in docs/ from a running Dagster UI: `make screenshots`.

Needs a Chromium: Debian's package `chromium`, or another whose path CHROMIUM names.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import requests
from playwright.sync_api import FloatRect, Page, sync_playwright
from rich.console import Console

from stack.demo import await_nothing_pending, running_demo_stack, temporary_home
from stack.spew import spew, tasks_of
from stack.standin.market import WELL_KNOWN_COINS
from stack.up import LINEAGE

DOCS = Path(__file__).parent
PAGE_TIMEOUT = 120_000  # milliseconds
MARGIN = 24  # pixels above a heading
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def main() -> None:
    """Run a stack, give it good and bad moments, and photograph what its user sees of them."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("No Chromium: install the package chromium, or name another with CHROMIUM")
    with (
        temporary_home() as home,
        running_demo_stack(home) as state,
        psycopg.connect(state["database_url"], autocommit=True) as connection,
        a_page(chromium) as page,
    ):
        some_coins(state, connection)
        photograph_a_good_day(page, state["ui_url"])
        photograph_an_outage(page, state)
        await_nothing_pending(connection, console=Console())
        photograph_a_failed_check(page, state, connection)


@contextmanager
def a_page(chromium: str) -> Iterator[Page]:
    """Open a browser for as long as the block lasts."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 520})
        page.set_default_timeout(PAGE_TIMEOUT)
        yield page
        browser.close()


def some_coins(state: dict[str, Any], connection: psycopg.Connection) -> None:
    """Let the first coins go the whole way."""
    console = Console()
    # A coin whose lookup has failed five times fails once more, and is a dead letter.
    connection.execute("INSERT INTO coin_lookups (coin_id, attempts) VALUES ('standin-status-503', 5)")
    post(state, ["standin-status-503"])
    tasks = tasks_of(WELL_KNOWN_COINS[40:], size=4, fresh=True, chance=random.Random(1))
    spew(f"{state['receiver_url']}/coins", tasks=tasks, count=10, delay=0.2, console=console)
    await_nothing_pending(connection, console=console)


def photograph_a_good_day(page: Page, ui_url: str) -> None:
    """Save the lineage, the asset `coins`, what CoinGecko answered and what runs by itself."""
    page.goto(f"{ui_url}/runs")
    page.get_by_text("Success").first.wait_for()
    page.get_by_text("Hide navigation").click()
    look_at_everything(page, ui_url)
    page.get_by_text("post_to_row_median_seconds").wait_for()
    save(page, "status", height=2140)
    page.goto(f"{ui_url}/runs")
    page.get_by_text("found").first.wait_for()
    save(page, "runs", height=520)
    page.set_viewport_size({"width": 1600, "height": 760})  # the graph is fitted into it when it opens
    page.goto(f"{ui_url}{LINEAGE}")
    page.get_by_text("exchanges_with_x").first.wait_for()
    save(page, "lineage", height=760)
    page.goto(f"{ui_url}/assets/coins")
    page.get_by_text("new_coins").wait_for()
    save(page, "coins", height=1400)
    page.goto(f"{ui_url}/assets/coin_lookups")
    page.get_by_text("dead_letters").wait_for()
    save(page, "lookups", height=2400, below="Metadata", upper=1180)
    page.goto(f"{ui_url}/automation")
    page.get_by_text("staged_coins_sensor").wait_for()
    save(page, "automation", height=480)


def photograph_an_outage(page: Page, state: dict[str, Any]) -> None:
    """Save a run that waits for CoinGecko to come back: a stand-in that stands still answers nobody."""
    (standin,) = (process["pid"] for process in state["processes"] if process["name"] == "standin")
    os.kill(standin, signal.SIGSTOP)
    try:
        post(state, WELL_KNOWN_COINS[:8])
        page.set_viewport_size({"width": 1600, "height": 1000})  # of the log, only what is seen is on the page
        page.goto(f"{state['ui_url']}/runs/{failed_run(state)}")
        page.get_by_text("CoinGecko does not answer").first.wait_for()
        save(page, "outage", height=1000)
        page.goto(f"{state['ui_url']}/assets/staged_coins")
        page.get_by_role("button", name="Observe").click()
        page.get_by_text("Launched run").wait_for()
        page.reload()  # the page does not fetch the first metadata of an asset by itself
        page.get_by_text("oldest_pending_seconds").wait_for()
        save(page, "pending", height=1500)
    finally:
        os.kill(standin, signal.SIGCONT)


def photograph_a_failed_check(page: Page, state: dict[str, Any], connection: psycopg.Connection) -> None:
    """Save what a row that breaks a promise of its table looks like."""
    connection.execute("INSERT INTO coins (id, exchanges, complete) VALUES ('somebody-was-here', '{b,a}', true)")
    look_at_everything(page, state["ui_url"])
    page.goto(f"{state['ui_url']}/assets/pipeline_status?view=checks")
    page.get_by_text("coins_are_well_formed").first.click()
    page.get_by_text("violations").first.wait_for()
    save(page, "failed-check", height=700)


def failed_run(state: dict[str, Any]) -> str:
    """Wait for a run to fail, and return its id."""
    deadline = time.monotonic() + PAGE_TIMEOUT / 1000
    with psycopg.connect(state["environment"]["DAGSTER_DATABASE_URL"], autocommit=True) as dagster:
        while time.monotonic() < deadline:
            for (run,) in dagster.execute("SELECT run_id FROM runs WHERE status = 'FAILURE'"):
                return str(run)
            time.sleep(0.5)
    sys.exit("No run has failed, though CoinGecko does not answer")


def look_at_everything(page: Page, ui_url: str) -> None:
    """Have `pipeline_status` read and every check evaluated, as the schedule does, and open its page."""
    page.goto(f"{ui_url}/assets/pipeline_status")
    page.get_by_role("button", name="Observe").click()
    page.get_by_text("Launched run").wait_for()
    page.goto(f"{ui_url}/runs")
    page.get_by_text("In progress (0)").wait_for()
    page.goto(f"{ui_url}/assets/pipeline_status")


def post(state: dict[str, Any], coin_ids: list[str]) -> None:
    """POST some ids."""
    requests.post(f"{state['receiver_url']}/coins", json={"coins": coin_ids}, timeout=5).raise_for_status()


def save(page: Page, name: str, *, height: int, upper: int | None = None, below: str | None = None) -> None:
    """Save a picture of a page, or of a part of it, once it has stopped loading and drawing.

    Args:
        page: what to save.
        name: of the picture.
        height: of the window, in pixels.
        upper: only so many pixels of it.
        below: begin at the heading with this text.
    """
    page.set_viewport_size({"width": 1600, "height": height})
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)
    heading = page.get_by_text(below, exact=True).first.bounding_box() if below else None
    top = heading["y"] - MARGIN if heading else 0
    clip: FloatRect = {"x": 0, "y": top, "width": 1140 if below else 1600, "height": min(upper or height, height - top)}
    page.screenshot(path=DOCS / f"{name}.png", clip=clip)


if __name__ == "__main__":
    main()
