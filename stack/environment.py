"""What `coins` and its children inherit from the shell: everything but what would lead them astray."""

import locale
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

# Set by the supervisor alone, in what it starts: the home of the stack that a process belongs to.
MARKER = "COINS_STACK"

LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1")
WILDCARD_ADDRESSES = {"0.0.0.0", "::"}  # noqa: S104 (compared, not bound)
NARROWEST = 20  # columns that a table is still seen in
LONGEST_TMPDIR = 70  # bytes; multiprocessing puts sockets below it, whose paths have room for 103


def _always(_value: str) -> bool:
    return True


def is_installed(name: str) -> bool:
    """Tell whether there is such a locale here."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, name)
    except locale.Error:
        return False
    locale.setlocale(locale.LC_ALL, before)
    return True


def _names_no_locale(value: str) -> bool:
    return not is_installed(value)


def _names_no_file(value: str) -> bool:
    return not any(os.access(path, os.R_OK) for path in (value, *value.split(os.pathsep)))


def _leaves_no_room(value: str) -> bool:
    return not value.isdecimal() or int(value) < NARROWEST


def _cannot_hold_sockets(value: str) -> bool:
    is_usable = Path(value).is_absolute() and Path(value).is_dir() and os.access(value, os.W_OK | os.X_OK)
    return not is_usable or len(os.fsencode(value)) > LONGEST_TMPDIR


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """Variables that are not passed on.

    Attributes:
        names: patterns of their names.
        reason: what they would do.
        drops: tells by the value whether this one would.
    """

    names: tuple[str, ...]
    reason: str
    drops: Callable[[str], bool] = _always


RULES = (
    _Rule(names=(MARKER,), reason="this process would pass for a part of that stack"),
    _Rule(names=("PG*",), reason="libpq and PostgreSQL's programs would go to another server, or speak otherwise"),
    _Rule(names=("PYTHON*",), reason="Python would import, warn, write or compile otherwise, down to not starting"),
    _Rule(names=("DAGSTER_*",), reason="Dagster's programs read options and places from them"),
    _Rule(
        names=("FLASK_*", "WERKZEUG_*", "GRANIAN_*", "UVICORN_*", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"),
        reason="servers read options from them, debugging included, or do not start",
    ),
    _Rule(names=("PROMETHEUS_*", "prometheus_*"), reason="metrics would be kept in a directory that is not ours"),
    _Rule(names=("GRPC_*", "grpc_*", "no_grpc_*"), reason="gRPC is for this machine only, and would be led off it"),
    _Rule(names=("LANG", "LC_*"), reason="programs refuse a locale that is not installed", drops=_names_no_locale),
    _Rule(
        names=("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        reason="every HTTPS call would fail for want of the file",
        drops=_names_no_file,
    ),
    _Rule(names=("SSLKEYLOGFILE",), reason="calls would give their keys away, or fail where they cannot"),
    _Rule(names=("COLUMNS",), reason="tables would be cut to nothing", drops=_leaves_no_room),
    _Rule(
        names=("TMPDIR", "TEMP", "TMP"),
        reason="a socket below it would have too long a path, or no place",
        drops=_cannot_hold_sockets,
    ),
)

SET = {
    "PYTHONUTF8": "1",  # paths and ids are UTF-8, whatever the terminal is
    "PGPASSFILE": f"{os.devnull}/none",  # libpq warns at each connection of a ~/.pgpass that others can read
    "NETRC": os.devnull,  # a `default` line of ~/.netrc would be sent to CoinGecko and to the receiver
}
SETTINGS = {"DAGSTER_UI_PORT"}  # of ours, whose names the rules would match
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that `coins` and its children go by.

    Args:
        environment: the shell's.
    """
    kept = {name: value for name, value in environment.items() if not _is_dropped(name, value)}
    return _spare_loopback(kept) | SET


def _is_dropped(name: str, value: str) -> bool:
    return name not in SETTINGS and any(
        fnmatchcase(name, pattern) and rule.drops(value) for rule in RULES for pattern in rule.names
    )


def _spare_loopback(environment: dict[str, str]) -> dict[str, str]:
    """Keep what is on this machine away from any proxy, and what the user keeps away from it, in either spelling.

    Libraries differ in which spelling they read, in what separates hosts, and in whether `*` counts beside others.
    """
    text = ",".join(environment.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    hosts = [host for host in re.split(r"[\s,]+", text) if host]
    if "*" in hosts:
        return {name: value for name, value in environment.items() if name.lower() not in PROXIES}
    own = environment.get("RECEIVER_HOST", "")
    names = [*hosts, *LOOPBACK, *([own] if own and own not in WILDCARD_ADDRESSES else [])]
    exempt = ",".join(dict.fromkeys(names))
    return environment | {"no_proxy": exempt, "NO_PROXY": exempt}
