"""The stand-in alone: `coins standin`, and `python -m stack.standin` where nothing else of the stack is."""

import socket
from typing import Any

import click

from stack.standin.faults import FAULTS
from stack.standin.rules import HOSTILE, rule_for, rule_of
from stack.standin.server import API_ROOT, StandIn, create_server


@click.command(context_settings={"show_default": True})
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080)
@click.option("--calls-per-minute", "calls_per_window", type=click.IntRange(0), default=30, help="0 is no limit.")
@click.option("--calls-per-month", type=click.IntRange(0), default=0, help="Credit of each key; 0 is no limit.")
@click.option("--window", "window_seconds", type=float, default=60, help="Length of the minute in seconds.")
@click.option("--latency-ms", type=click.IntRange(0), default=150)
@click.option("--coins", type=click.IntRange(0), default=10_000, help="How many coins there ever were.")
@click.option("--listed", type=click.IntRange(0), help="How many of them there are still [default: all].")
@click.option("--fault", "faults", metavar="NAME[?OPTIONS]", multiple=True, help="A bad answer; may be repeated.")
@click.option("--firewall", metavar="NAME", help="A bad answer for ids that look like SQL or a path.")
@click.option("--advertise", "advertised_limit", type=click.IntRange(1), help="Send it as x-ratelimit-limit.")
def standin(
    *,
    host: str,
    port: int,
    latency_ms: int,
    faults: tuple[str, ...],
    firewall: str | None,
    **settings: Any,  # noqa: ANN401 (the others are the state's own)
) -> None:
    """Serve the CoinGecko stand-in alone.

    Every call gets the --fault, unless its options say which: '429-html?coin=bitcoin&calls=3',
    '10006?path=/coins/list', 'status-503?seconds=60'. An id can ask for one itself: standin-429-html. While it
    runs, POST /standin/faults/NAME gives one, and GET /standin/faults lists them.
    """
    try:
        rules = [rule_of(fault) for fault in faults]
        if firewall is not None:
            rules.append(rule_for(firewall, path=HOSTILE))
    except ValueError as error:
        names = f"{', '.join(FAULTS)}, status-503 and the like, and any with another status, as throttled-on-403"
        raise click.ClickException(f"{error}. There are {names}") from error
    state = StandIn(latency_seconds=latency_ms / 1000, rules=rules, **settings)
    if port and _is_taken(host, port):
        raise click.ClickException(f"Port {port} is taken: stop what listens there, or give another with --port")
    server = create_server(state, host=host, port=port)
    click.echo(f"COINGECKO_BASE_URL=http://{host}:{server.port}{API_ROOT}")
    server.serve_forever()


def _is_taken(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    standin()
