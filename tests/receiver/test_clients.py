"""Who a request comes from, whatever its proxies put around its address."""

from collections.abc import Callable

import psycopg
import pytest

from receiver.clients import ApiKeys, normal_address
from tests.receiver.conftest import Receiver, assert_problem

StartReceiver = Callable[..., Receiver]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        *(("192.0.2.1", "192.0.2.1"), ("192.0.2.1:4711", "192.0.2.1"), ('"192.0.2.1:4711"', "192.0.2.1")),
        *(("2001:db8::1", "2001:db8::1"), ("2001:0DB8:0:0::0001", "2001:db8::1"), ("[2001:db8::1]", "2001:db8::1")),
        *(("[2001:DB8::1]:443", "2001:db8::1"), ('"[2001:db8::1]:443"', "2001:db8::1"), ("::1", "::1")),
        *(("fe80::1%eth0", "fe80::1"), ("[fe80::1%25eth0]:80", "fe80::1"), ("::ffff:192.0.2.1", "192.0.2.1")),
        *(("[::FFFF:c000:0201]:80", "192.0.2.1"), ("::", "::")),
        *(("unknown", None), ("_hidden", None), ("", None), ("example.com", None), ("192.0.2", None)),
        *(("192.0.2.256", None), ("192.0.2.010", None), ("[192.0.2.1", None), ("2001:db8::1:zz", None)),
        *(("192.0.2.1:port", None), ("[2001:db8::1]x", None), ("1" * 100_000, None), (":" * 1000 + "]", None)),
        ("\N{REPLACEMENT CHARACTER} (not ASCII)", None),
    ],
)
def test_an_address_has_one_spelling(text: str, address: str | None) -> None:
    assert normal_address(text) == address


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        *(("Bearer a", "ann"), ("bearer  a ", "ann"), ("Bearer a,Bearer a", "ann"), ("Bearer a, Bearer b", None)),
        *(("Bearer A", None), ("Basic a", None), ("a", None), ("", None), (None, None), ("Bearer", None)),
    ],
)
def test_a_key_is_known_by_its_bearer_token(sent: str | None, name: str | None) -> None:
    assert ApiKeys({"ann": "a", "bob": "b"}).name_of(sent) == name


def test_the_client_is_the_address_that_trusted_proxies_report(
    start_receiver: StartReceiver, connection: psycopg.Connection
) -> None:
    def client(receiver: Receiver, **headers: str) -> str:
        response = receiver.post_ids("bitcoin", **headers)
        assert response.status_code == 202, response.text
        number = response.json()["submission"]
        return str(connection.execute("SELECT client FROM submissions WHERE id = %s", (number,)).fetchall()[0][0])

    receiver = start_receiver(RECEIVER_RATE_LIMIT="6/hour", RECEIVER_TRUSTED_PROXIES="1")
    spellings = (
        "203.0.113.5",
        "203.0.113.5:80",
        "spoofed, 203.0.113.5",
        "x,, ::FFFF:203.0.113.5 ,",
        "[::ffff:cb00:7105]:1",
    )
    assert {client(receiver, **{"X-Forwarded-For": sent}) for sent in spellings} == {"203.0.113.5"}
    assert client(receiver) == "127.0.0.1"
    # They are one client, and its limit is one.
    forwarded = {"X-Forwarded-For": "203.0.113.5"}
    assert [receiver.post_ids("bitcoin", **forwarded).status_code for _ in range(2)] == [202, 429]
    for headers in (
        *(
            {"X-Forwarded-For": sent}
            for sent in ("unknown", "203.0.113.5, _hidden", "", ",", "203.0.113.5, clé".encode())
        ),
        {"Forwarded": "for=203.0.113.5"},
    ):
        problem = assert_problem(receiver.request("POST", "/coins", json={"coins": ["bitcoin"]}, headers=headers), 400)
        assert "X-Forwarded-For" in problem["detail"]
        assert receiver.request("GET", "/livez", headers=headers).status_code == 200


def test_every_trusted_proxy_has_to_have_said_something(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(RECEIVER_TRUSTED_PROXIES="2", RECEIVER_API_KEYS="ann:a")
    assert_problem(receiver.get("/coins", **{"X-Forwarded-For": "203.0.113.5"}), 400)
    assert_problem(receiver.get("/coins", **{"X-Forwarded-For": "203.0.113.5, 10.0.0.1"}), 401)
    # Who has a key is known by it.
    assert receiver.get("/coins", **{"X-Forwarded-For": "unknown", "Authorization": "Bearer a"}).status_code == 200


def test_to_ask_what_may_be_sent_needs_no_key_and_counts_against_no_limit(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(RECEIVER_RATE_LIMIT="1/hour", RECEIVER_API_KEYS="ann:a")
    for _ in range(3):
        response = receiver.request("OPTIONS", "/coins")
        assert (response.status_code, sorted(response.headers["allow"].split(", "))) == (
            200,
            ["GET", "HEAD", "OPTIONS", "POST"],
        )
        assert "x-ratelimit-limit" not in response.headers
    assert receiver.get("/coins", Authorization="Bearer a").status_code == 200
