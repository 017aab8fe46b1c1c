"""What can go wrong on the way to CoinGecko: each has one clear reason, asks nothing of a coin, tells no password."""

import re
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PathDistribution
from pathlib import Path

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.coingecko.client import CoinGeckoClient, user_agent_of
from coin_pipeline.coingecko.errors import CoinGeckoUnavailableError, UnreachableError
from tests.conftest import stage
from tests.lookups.engine import IMPATIENT, drain
from tests.lookups.test_hostile_answers import raw, whole

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in PROXY_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


def reason_why_unreachable(base_url: str) -> str:
    client = CoinGeckoClient(base_url=base_url, timeouts=IMPATIENT)
    with pytest.raises(UnreachableError) as raised:
        client.fetch_tickers("bitcoin", page=1)
    assert not raised.value.spends_credit
    return str(raised.value)


def a_file_of(tmp_path: Path, content: str) -> str:
    path = tmp_path / "ca.pem"
    path.write_text(content)
    return str(path)


@pytest.mark.parametrize(
    ("bundle", "says"),
    [
        pytest.param(lambda tmp_path: str(tmp_path / "gone.pem"), "gone.pem", id="is missing"),
        pytest.param(lambda tmp_path: a_file_of(tmp_path, ""), "certificate", id="is empty"),
        pytest.param(lambda tmp_path: a_file_of(tmp_path, "no certificate"), "certificate", id="is no certificate"),
    ],
)
def test_a_ca_bundle_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Callable[[Path], str], says: str
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle(tmp_path))
    with raw(lambda *_: whole()) as server:
        reason = reason_why_unreachable(server.base_url.replace("http:", "https:"))
    assert reason.startswith("cannot reach 127.0.0.1:")
    assert says in reason


def test_a_name_that_is_not_known() -> None:
    assert reason_why_unreachable("https://coingecko.invalid/api/v3").startswith("cannot reach coingecko.invalid: ")


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "\N{SNOWMAN}" * 70])
def test_a_name_that_cannot_be_one(host: str) -> None:
    assert reason_why_unreachable(f"https://{host}/api/v3").startswith("cannot reach ")


@contextmanager
def silent_server() -> Iterator[int]:
    """Listen on a port where connections are made, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_handshake_that_takes_too_long() -> None:
    with silent_server() as port:
        assert "timed out" in reason_why_unreachable(f"https://127.0.0.1:{port}")


def test_no_file_descriptor_is_left() -> None:
    with raw(lambda *_: whole()) as server:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            reason = reason_why_unreachable(server.base_url)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "Too many open files" in reason


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("password", ["SECRET", "SE/CRET", "SE#CRET", "SE@CRET", "SE%40CRET"])
@pytest.mark.parametrize("proxy", ["http://user:%s@127.0.0.1:1", "user:%s@127.0.0.1:1", "http://user:%s@a..b:1"])
def test_a_dead_proxy_is_called_one_without_its_password(
    monkeypatch: pytest.MonkeyPatch, scheme: str, password: str, proxy: str
) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", proxy % password)
    reason = reason_why_unreachable(f"{scheme}://coingecko.invalid/api/v3")
    assert reason.startswith("cannot reach coingecko.invalid through the proxy ")
    assert "SE" not in reason
    assert "CRET" not in reason
    assert "user" not in reason


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password_is_called_one(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with raw(lambda *_: whole(b"", status="407 Proxy Authentication Required")) as server:
        monkeypatch.setenv(f"{scheme}_proxy", server.base_url.replace("//", "//user:SECRET@"))
        reason = reason_why_unreachable(f"{scheme}://coingecko.invalid/api/v3")
    assert "proxy" in reason
    assert "407" in reason
    assert "SECRET" not in reason


def test_a_drain_that_cannot_call_says_why_and_spends_nothing(
    connection: psycopg.Connection, pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "gone.pem"))
    stage(connection, *"abcde")
    with pytest.raises(CoinGeckoUnavailableError, match=r"gone\.pem"):
        drain(pool, "https://127.0.0.1:1")
    ((reason,),) = connection.execute("SELECT pause_reason FROM pipeline_status").fetchall()
    assert "gone.pem" in reason
    lookups = connection.execute("SELECT state, attempts FROM coin_lookups WHERE error LIKE '%gone.pem%'").fetchall()
    assert set(lookups) == {("pending", 0)}
    assert connection.execute("TABLE api_calls").fetchall() == []


def test_calls_say_who_calls(tmp_path: Path) -> None:
    with raw(lambda *_: whole()) as server:
        CoinGeckoClient(base_url=server.base_url).fetch_tickers("bitcoin", page=1)
        (head,) = server.heads
    (user_agent,) = re.findall(r"(?im)^user-agent: (.*)\r$", head)
    assert re.fullmatch(r"coin-pipeline/\d+\.\d+\.\d+( \(\+https://.*\))?", user_agent)
    (metadata := tmp_path / "METADATA").write_text("Name: coin-pipeline\nVersion: 1.2\n")
    assert user_agent_of(PathDistribution(tmp_path).metadata) == "coin-pipeline/1.2"
    metadata.write_text(f"{metadata.read_text()}Project-URL: Homepage, https://example.org/coins\n")
    assert user_agent_of(PathDistribution(tmp_path).metadata) == "coin-pipeline/1.2 (+https://example.org/coins)"
