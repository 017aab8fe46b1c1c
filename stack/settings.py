"""The settings of what the stack starts: checked, each by the program that reads it, before anything is."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from stack.errors import StackError

# Run as the services will be, since the stack knows them only as processes.
READ_RECEIVER_SETTINGS = """
import json
from receiver.settings import read_settings
settings = read_settings()
print(json.dumps({"host": settings.receiver_host, "sessions": settings.receiver_workers * settings.receiver_threads}))
"""
READ_PIPELINE_SETTINGS = """
import json
from coin_pipeline.settings import read_settings
settings = read_settings()
# A run that ends overlaps the next one; each has a session for each call, and three for itself.
sessions = 2 * settings.lookup_runs * (settings.coingecko_concurrency + 3)
print(json.dumps({"base_url": settings.base_url, "sessions": sessions}))
"""
SESSIONS_OF_OTHERS = 40  # the sensors' 2, Dagster's 10 or so, and the user's; twice of that, since more cost little
LEAST_CONNECTIONS = 100  # PostgreSQL's own default


@dataclass(frozen=True, kw_only=True)
class CheckedSettings:
    """What the stack itself needs of the settings.

    Attributes:
        receiver_host: the address or name that the receiver listens at.
        max_connections: how many sessions of PostgreSQL all of it can need.
    """

    receiver_host: str
    max_connections: int


def check_settings(environment: Mapping[str, str]) -> CheckedSettings:
    """Have each program read its settings.

    Args:
        environment: that the programs will have.

    Raises:
        StackError: one is wrong; it names the variable.
    """
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            cwd="/",  # the user's may hold modules that are called like ours
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        for program in (READ_RECEIVER_SETTINGS, READ_PIPELINE_SETTINGS)
    ]
    receiver, pipeline = [_result_of(program, *program.communicate()) for program in programs]
    _check_proxy(pipeline["base_url"], environment)
    sessions = receiver["sessions"] + pipeline["sessions"] + SESSIONS_OF_OTHERS
    return CheckedSettings(receiver_host=receiver["host"], max_connections=max(LEAST_CONNECTIONS, sessions))


def _result_of(program: subprocess.Popen[str], output: str, errors: str) -> Any:  # noqa: ANN401 (it is JSON)
    if program.returncode:
        last_line = (errors.strip().splitlines() or ["the settings cannot be read"])[-1]
        raise StackError(re.sub(r"^[\w.]+Error: ", "", last_line))
    return json.loads(output)


def _check_proxy(url: str, environment: Mapping[str, str]) -> None:
    """Refuse a proxy that no call could go through."""
    proxy = select_proxy(url, get_environ_proxies(url))
    if proxy is None:
        return
    named = [name for name, value in environment.items() if value == proxy and name.lower().endswith("_proxy")]
    variable = ", ".join(sorted(named)) or "the proxy"
    scheme, host = _scheme_and_host_of(proxy)
    if scheme.startswith("socks") and find_spec("socks") is None:
        raise StackError(f"{variable}: a SOCKS proxy needs one package more: {sys.executable} -m pip install PySocks")
    if not scheme.startswith(("http", "socks")) or not host:
        raise StackError(f"{variable}: it is no proxy's URL, such as http://proxy.example:3128")


def _scheme_and_host_of(proxy: str) -> tuple[str, str]:
    """Return what a proxy's URL says, which may lack a scheme; and of what is no URL, nothing."""
    with suppress(ValueError):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.port != 0:
            return parts.scheme, parts.hostname or ""
    return "", ""
