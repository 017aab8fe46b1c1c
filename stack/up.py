"""`coins up`: the whole system on one machine."""

import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psycopg
import sqlalchemy as sa
from rich.console import Console

from sql.migrate import ensure_database, migrate
from stack.addresses import Ports, check_ports, url_at
from stack.errors import StackError
from stack.home import Home, home_at
from stack.limits import check_shared_locks, raise_limits
from stack.postgres import EmbeddedPostgres, prepare_postgres
from stack.scratch import scratch_directory
from stack.services import STANDIN_CALLS_PER_MINUTE, dagster_services, first_services, postgres_service
from stack.settings import CheckedSettings, check_settings
from stack.standin.server import API_ROOT
from stack.supervisor import StopRequestedError, Supervisor, end_processes_of

# The lineage of `coins` as far as it goes, with each asset's state: the first page would show a graph of closed groups.
LINEAGE = "/assets/coins?view=lineage&lineageDepth=5"

CLOCK_TOLERANCE = timedelta(seconds=60)  # as long as sensors may stand still unnoticed


def run_stack(home: Home, *, ports: Ports, console: Console) -> None:
    """Run everything until Ctrl-C or SIGTERM, and leave no process behind.

    Raises:
        StackError: it cannot start, or part of it keeps dying.
    """
    raise_limits()
    command = _command_for(home)
    settings = check_settings(
        _environment(home, ports=ports, url=lambda database: f"postgresql://postgres@/{database}")
    )
    check_shared_locks()
    supervisor = Supervisor(logs=home.logs, working_directory=home.path)
    for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(stop_signal) != signal.SIG_IGN or stop_signal != signal.SIGHUP:  # as nohup has it
            signal.signal(stop_signal, lambda *_: supervisor.stop_requested.set())
    os.umask(0o077)  # what is in a home is its user's alone
    with home.claim(), scratch_directory() as variables:
        end_processes_of(home.path)
        check_ports(ports, receiver_host=settings.receiver_host)
        started = time.monotonic()
        postgres = prepare_postgres(home.postgres_data)
        try:
            for note in postgres.notes:
                _say(console, note)
            _start(
                home,
                supervisor=supervisor,
                ports=ports,
                environment=_environment(home, ports=ports, url=postgres.url) | variables,
                postgres=postgres,
                settings=settings,
                console=console,
            )
            receiver_url = url_at(settings.receiver_host, ports.receiver.number)
            ui_url = url_at("127.0.0.1", ports.ui.number)

            def publish_state() -> None:
                home.write_state(
                    {
                        "database_url": postgres.url("challenge_db"),
                        "psql": str(postgres.binaries / "psql"),
                        "receiver_url": receiver_url,
                        "ui_url": ui_url,
                        "environment": _exports(home, ports=ports, postgres=postgres),
                        "processes": supervisor.processes(),
                    }
                )

            def note_restart(name: str) -> None:
                with suppress(OSError):  # a full disk: what runs goes on
                    publish_state()
                _say(console, f"{name} died and was started again; see {home.logs / name}.log")

            publish_state()
            _say(
                console,
                f"Ready after {time.monotonic() - started:.0f} s.\n\n"
                f"  POST coin ids to     {receiver_url}/coins\n"
                f"  watch it work at     {ui_url}{LINEAGE}\n"
                f"  ask the database     {command} psql -c 'TABLE exchange_coin_stats'\n"
                f"  see how it is doing  {command} status\n\n"
                "Ctrl-C stops everything and keeps all data.",
            )
            supervisor.watch(on_restart=note_restart)
        except StopRequestedError:
            pass
        finally:
            _say(console, "Stopping ...")
            # Without the daemon nothing is launched in a code server that is gone; the database goes last.
            supervisor.stop(["daemon"], ["receiver", "code-server", "webserver"], ["standin"], ["postgres"])
            postgres.remove_socket_directory()


def _say(console: Console, text: str) -> None:
    """Print lines as they are, where somebody still reads them: what runs does not depend on it."""
    try:
        console.print(text, soft_wrap=True, markup=False, highlight=False)
    except SystemExit:  # rich ends the process when a pipe is closed
        pass
    except OSError:  # a full disk: what waits to be written would fail again with whatever is written next
        os.dup2(os.open(os.devnull, os.O_WRONLY), console.file.fileno())


def _start(
    home: Home,
    *,
    supervisor: Supervisor,
    ports: Ports,
    environment: Mapping[str, str],
    postgres: EmbeddedPostgres,
    settings: CheckedSettings,
    console: Console,
) -> None:
    """Start the services in the order of their needs."""
    with console.status("Starting PostgreSQL ..."):
        supervisor.start(postgres_service(postgres, environment, max_connections=settings.max_connections))
        try:
            for database in ("challenge_db", "dagster"):
                ensure_database(postgres.url(database))
            migrate(postgres.url("challenge_db"))
            _check_clock(postgres.url("dagster"))
        except (psycopg.Error, sa.exc.SQLAlchemyError) as error:
            raise StackError(
                f"The database cannot be prepared: {error}; more in {home.logs / 'postgres.log'}"
            ) from error
    shutil.copyfile(Path(__file__).with_name("dagster.yaml"), home.dagster_home / "dagster.yaml")
    with console.status("Starting the receiver and the pipeline's code ..."):
        receiver_url = url_at(settings.receiver_host, ports.receiver.number)
        supervisor.start(*first_services(ports, environment, receiver_url=receiver_url))
    with console.status("Starting Dagster's daemon and web server ..."):
        supervisor.start(*dagster_services(ports, environment, postgres=postgres))


def _check_clock(dagster_url: str) -> None:
    """Refuse a clock that was set back: Dagster starts no sensor before the time of its last start has come again."""
    with psycopg.connect(dagster_url) as connection:
        if connection.execute("SELECT to_regclass('daemon_heartbeats')").fetchone() == (None,):
            return
        statement = "SELECT max(timestamp) AT TIME ZONE 'UTC', now() FROM daemon_heartbeats"
        last, now = connection.execute(statement).fetchall()[0]
    if last and last - now > CLOCK_TOLERANCE:
        raise StackError(
            f"The clock says {now:%Y-%m-%d %H:%M} UTC, and this home was last used at {last:%Y-%m-%d %H:%M}: "
            "set the clock right, or give another directory with --home"
        )


def _environment(home: Home, *, ports: Ports, url: Callable[[str], str]) -> dict[str, str]:
    """Return the environment of every service: the user's, with what this stack decides itself.

    Args:
        home: of the stack.
        ports: of the stack.
        url: returns a database's libpq URL.
    """
    decided = {
        "DATABASE_URL": url("challenge_db"),
        "DAGSTER_DATABASE_URL": url("dagster"),
        "DAGSTER_HOME": str(home.dagster_home),
        "DAGSTER_CODE_SERVER_HOST": "127.0.0.1",
        "DAGSTER_CODE_SERVER_PORT": str(ports.code_server),
        "RECEIVER_PORT": str(ports.receiver.number),
        "PYTHONUNBUFFERED": "1",
        "LC_ALL": "C",  # messages that all can read
    }
    if ports.standin is not None:
        decided |= {
            "COINGECKO_BASE_URL": f"http://127.0.0.1:{ports.standin}{API_ROOT}",
            "COINGECKO_CALLS_PER_MINUTE": str(STANDIN_CALLS_PER_MINUTE),
            "COINGECKO_CALLS_PER_MONTH": "",
            "COINGECKO_API_KEY": "",
            "COINGECKO_PLAN": "",
        }
    # Settings are read in any case: another spelling would count as well.
    inherited = {name: value for name, value in os.environ.items() if name.upper() not in decided}
    return inherited | decided


def _exports(home: Home, *, ports: Ports, postgres: EmbeddedPostgres) -> dict[str, str]:
    """Return what other programs need to talk to this stack: neither a key nor the mark of its own processes."""
    return {
        "DATABASE_URL": postgres.url("challenge_db"),
        "DAGSTER_DATABASE_URL": postgres.url("dagster"),
        "DAGSTER_HOME": str(home.dagster_home),
        "DAGSTER_CODE_SERVER_HOST": "127.0.0.1",
        "DAGSTER_CODE_SERVER_PORT": str(ports.code_server),
        "PGHOST": str(postgres.socket_directory),
        "PGUSER": "postgres",
        "PGDATABASE": "challenge_db",
    }


def _command_for(home: Home) -> str:
    """Return how to call `coins` for this home from where it was called now, in any shell."""
    return shlex.join([*(() if home == home_at(None) else ("env", f"COINS_HOME={home.path}")), *coins_command()])


def coins_command() -> list[str]:
    """Return how `coins` was called now."""
    return [sys.argv[0]] if Path(sys.argv[0]).name == "coins" else [sys.executable, "-m", "stack"]
