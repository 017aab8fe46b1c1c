"""The `coins` command."""

import io
import json
import os
import random
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

import click
import psutil
import psycopg
import requests
from rich.console import Console

from sql import query
from sql.coin_ids import can_be_coin_id
from stack.addresses import HIGHEST_PORT, Ports, chosen_port, free_port
from stack.errors import StackError
from stack.home import home_at
from stack.spew import print_report, spew, tasks_of
from stack.standin.__main__ import standin
from stack.status import print_status, read_status

WATCH_EVERY = 2.0  # seconds

port_type = click.IntRange(1, HIGHEST_PORT)
home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the database, Dagster's files and the logs [default: COINS_HOME, else .coins].",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="coin-pipeline")
def coins() -> None:
    """Run and use the coin pipeline on one machine."""


coins.add_command(standin)


@coins.command()
@click.option("--standin", is_flag=True, help="Ask a CoinGecko stand-in on this machine instead of the real one.")
@home_option
@click.option("--receiver-port", type=port_type, help="[default: RECEIVER_PORT, else 5004]")
@click.option("--ui-port", type=port_type, help="[default: DAGSTER_UI_PORT, else 3000]")
def up(standin: bool, home: Path | None, receiver_port: int | None, ui_port: int | None) -> None:
    """Start everything, and stop it on Ctrl-C."""
    from stack.up import run_stack  # noqa: PLC0415 (brings Alembic, half the time that a command takes to start)

    ports = Ports(
        receiver=chosen_port(receiver_port, option="--receiver-port", variable="RECEIVER_PORT", default=5004),
        ui=chosen_port(ui_port, option="--ui-port", variable="DAGSTER_UI_PORT", default=3000),
        code_server=free_port(),
        standin=free_port() if standin else None,
    )
    run_stack(home_at(home), ports=ports, console=Console())


@coins.command()
@click.option("--keep", is_flag=True, help="Keep the temporary home and say where it is.")
def demo(keep: bool) -> None:
    """Run the whole way once, offline: POST, look up, answer."""
    from stack.demo import run_demo  # noqa: PLC0415 (as above)

    run_demo(keep=keep, console=Console())


@coins.command(name="spew")
@click.option("-e", "--endpoint", required=True, help="The receiver's URL, such as http://localhost:5004/coins.")
@click.option("-r", "--runs", type=click.IntRange(1), default=1000, help="Tasks to send.")
@click.option("-p", "--permutations", type=click.IntRange(1), default=4, help="Ids a task.")
@click.option("-d", "--delay", type=click.IntRange(0), default=400, help="Milliseconds between two tasks.")
@click.option("--fresh", is_flag=True, help="New ids in each task.")
@click.option("--ids", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File of ids, one a line.")
def spew_command(
    endpoint: str,
    runs: int,
    permutations: int,
    delay: int,
    fresh: bool,
    ids: Path | None,
) -> None:
    """Send coin-spewer's traffic, and say how it was answered."""
    console = Console()
    coin_ids = ids.read_text().splitlines() if ids else _listed_coin_ids()
    if len(coin_ids) < permutations:
        raise StackError(f"There are {len(coin_ids)} ids to draw from, fewer than the {permutations} of a task")
    tasks = tasks_of(coin_ids, size=permutations, fresh=fresh, chance=random.Random())  # noqa: S311
    report = spew(endpoint, tasks=tasks, count=runs, delay=delay / 1000, console=console)
    print_report(report, console=console)
    if not report.is_good:
        sys.exit(1)


@coins.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", metavar="[PSQL'S ARGUMENTS]", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the running stack's challenge_db. -? lists its arguments."""
    state = home_at(None).read_state()
    # By its option: with POSIXLY_CORRECT set, no option is taken after an argument.
    os.execv(state["psql"], [state["psql"], "-d", state["database_url"], *arguments])


@coins.command()
@home_option
def env(home: Path | None) -> None:
    """Print what lets dg, dagster and psql talk to the stack. For eval "$(coins env)"."""
    for name, value in home_at(home).read_state()["environment"].items():
        click.echo(f"export {name}={shlex.quote(value)}")


@coins.command()
@home_option
@click.option(
    "--json", "as_json", is_flag=True, help="For programs: the row pipeline_status, the processes, the problems."
)
@click.option("--watch", is_flag=True, help="Say it anew every 2 seconds, until Ctrl-C.")
def status(home: Path | None, as_json: bool, watch: bool) -> None:
    """Say what is pending and done, and which processes run. Exits with 1 when something is stuck."""
    console = Console()
    while True:
        found = read_status(home_at(home).read_state())
        if as_json:
            click.echo(json.dumps(found, default=str))
        else:
            if watch:
                console.clear()
            print_status(found, console=console)
        if not watch:
            sys.exit(bool(found["problems"]))
        time.sleep(WATCH_EVERY)


@coins.command()
@home_option
@click.option("--state", type=click.Choice(["failed", "unknown"]), default="failed", help="Which lookups.")
@click.option("--all", "all_of_them", is_flag=True, help="All of them, where no ID is given.")
@click.argument("coin_ids", metavar="[ID ...]", nargs=-1)
def requeue(home: Path | None, state: str, all_of_them: bool, coin_ids: tuple[str, ...]) -> None:
    """Look ids up again that failed, or that were unknown."""
    if bool(coin_ids) == all_of_them:
        raise StackError("Nothing was done: give either ids or --all")
    if wrong := [coin_id for coin_id in coin_ids if not can_be_coin_id(coin_id)]:
        raise StackError(f"Nothing was done: no coin can have the id {', '.join(map(repr, wrong))}")
    database_url = home_at(home).read_state()["database_url"]
    try:
        with psycopg.connect(database_url, connect_timeout=3) as connection:
            values = {"state": state, "coin_ids": list(coin_ids) or None}
            requeued = [coin_id for (coin_id,) in connection.execute(query("lookups/requeue_lookups"), values)]
    except psycopg.OperationalError as error:
        raise StackError(f"The database does not answer: {error}") from error
    for coin_id in requeued:
        click.echo(coin_id)
    click.echo(f"{len(requeued)} requeued", err=True)
    if missed := sorted(set(coin_ids) - set(requeued)):
        raise StackError(f"These did not end as {state}: {', '.join(missed)}")


def _listed_coin_ids() -> list[str]:
    """Return the ids of CoinGecko's own list."""
    base_url = os.environ.get("COINGECKO_BASE_URL") or "https://api.coingecko.com/api/v3"
    try:
        response = requests.get(f"{base_url}/coins/list", timeout=30)
        response.raise_for_status()
        return [coin["id"] for coin in response.json()]
    except (requests.RequestException, ValueError, KeyError) as error:
        raise StackError(
            f"The list of coins cannot be read from {base_url}: {error}. "
            "Give a file with --ids, or another CoinGecko with COINGECKO_BASE_URL"
        ) from error


def run() -> None:
    """Run the command; whatever a user can mend is one line, and exit code 1."""
    _right_what_was_inherited()
    try:
        sys.exit(coins.main(standalone_mode=False))
    except StackError as error:
        _fail(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.UsageError as error:
        _fail(f"{error.format_message()} (see --help)")
    except click.ClickException as error:
        _fail(error.format_message())
    except click.Abort:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        sys.exit(1)
    except psutil.Error as error:
        _fail(f"The processes of this machine cannot be seen: give this user a /proc ({error})")
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    finally:
        _drop_what_cannot_be_written()


def _right_what_was_inherited() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # ids are of any script, terminals are not
    # As whoever started this may have left them: then no child's end would be known, or no request to stop be heard.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _drop_what_cannot_be_written() -> None:
    """Have the interpreter not try once more, and fail, when it ends: a pipe is closed, or a disk is full."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as it is where a shell has closed it
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(text: str) -> NoReturn:
    click.echo(f"Error: {' '.join(text.split())}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    run()  # in an image, where nothing is inherited from a shell
