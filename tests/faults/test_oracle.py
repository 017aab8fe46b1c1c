"""The oracle is silent about a database that keeps every promise, and says each way in which one does not."""

import psycopg
import pytest

from tests.conftest import stage
from tests.faults.oracle import Told, find_violations

EXCHANGES = {"bitcoin": ["binance", "kraken"], "tether": []}
KEY = "a-key"


@pytest.fixture
def told(connection: psycopg.Connection) -> list[Told]:
    """Five POSTs, and a database that holds what their clients were told."""
    first = stage(connection, "bitcoin", "nonesuch")
    second = stage(connection, "bitcoin", "tether")
    stage(connection, "tether")
    connection.execute("UPDATE submissions SET idempotency_key = %s WHERE id = %s", (KEY, second))
    connection.execute("INSERT INTO rejected_coins VALUES (%s, 1, '', 'empty id')", (second,))
    connection.execute(
        "INSERT INTO coins (id, exchanges, complete)"
        " VALUES ('bitcoin', '{binance,kraken}', true), ('tether', '{}', true)"
    )
    connection.execute(
        "INSERT INTO coin_lookups (coin_id, state, looked_up_at)"
        " VALUES ('bitcoin', 'found', now()), ('tether', 'found', now()), ('nonesuch', 'unknown', now())"
    )
    connection.execute("UPDATE staged_coins SET outcome = 'already_known', resolved_at = now()")
    connection.execute("UPDATE staged_coins SET outcome = 'unknown' WHERE coin_id = 'nonesuch'")
    connection.execute(
        "UPDATE staged_coins SET outcome = 'added' WHERE (submission_id, coin_id) IN ((%s, 'bitcoin'), (%s, 'tether'))",
        (first, second),
    )
    rejected = [{"position": 1, "value": "", "reason": "empty id"}]
    return [
        Told(coin_ids=["bitcoin", " nonesuch", "bitcoin"], status=202,
             answer={"submission": first, "accepted": 2, "duplicates": 1, "rejected": []}),
        Told(coin_ids=["bitcoin", "", "tether"], key=KEY, status=202, is_retried=True,
             answer={"submission": second, "accepted": 2, "duplicates": 0, "rejected": rejected}),
        Told(coin_ids=["tether"], status=None),
        Told(coin_ids=["lost"], status=503),
        Told(coin_ids=[""], status=422),
    ]  # fmt: skip


def violations(connection: psycopg.Connection, told: list[Told]) -> list[str]:
    return find_violations(connection, told, exchanges_of=EXCHANGES.get)


def test_what_is_as_it_was_told_is_no_violation(connection: psycopg.Connection, told: list[Told]) -> None:
    assert violations(connection, told) == []


@pytest.mark.parametrize(
    ("tampering", "said"),
    [
        ("DELETE FROM submissions WHERE id = 1", "submission 1 was acknowledged and is not there"),
        ("DELETE FROM staged_coins WHERE coin_id = 'nonesuch'", "acknowledged without ['nonesuch']"),
        ("INSERT INTO staged_coins VALUES (1, 'tether', 5, 'already_known', now())", "['tether'], which were not sent"),
        ("DELETE FROM rejected_coins", "and holds []"),
        ("UPDATE submissions SET idempotency_key = 'a-key', client = id::text", "the key a-key has 3 submissions"),
        ("UPDATE staged_coins SET coin_id = 'bitcoin' WHERE submission_id = 3",
         "submission 3 holds ['bitcoin'], which nobody sent or was refused"),
        ("UPDATE staged_coins SET outcome = 'unknown' WHERE coin_id = 'tether' AND submission_id = 3",
         "'tether' of submission 3 is unknown, and is a coin"),
        ("UPDATE staged_coins SET outcome = 'failed' WHERE coin_id = 'nonesuch'",
         "'nonesuch' of submission 1 is failed, and is not a coin"),
        ("UPDATE staged_coins SET outcome = 'added' WHERE coin_id = 'nonesuch'", "is added, and not in coins"),
        ("UPDATE staged_coins SET outcome = 'added' WHERE coin_id = 'tether'", "was added 2 times"),
        ("UPDATE staged_coins SET outcome = 'already_known' WHERE coin_id = 'tether'", "was added 0 times"),
        ("DELETE FROM coins WHERE id = 'tether'", "'tether' of submission 2 is added, and not in coins"),
        ("ALTER TABLE coins DROP CONSTRAINT coins_id_key; UPDATE coins SET id = 'bitcoin'",
         "'bitcoin' is in coins 2 times"),
        ("INSERT INTO coins (id, exchanges, complete) VALUES ('ethereum', '{}', true)", "nobody sent it"),
        ("UPDATE coins SET exchanges = '{binance}' WHERE id = 'bitcoin'", "should be on ['binance', 'kraken']"),
        ("UPDATE coins SET complete = false WHERE id = 'bitcoin'", "(complete: False)"),
        ("UPDATE staged_coins SET outcome = NULL, resolved_at = NULL WHERE coin_id = 'nonesuch'", "are pending"),
        ("UPDATE coin_lookups SET state = 'pending' WHERE coin_id = 'nonesuch'", "lookup of 'nonesuch' is pending"),
        ("INSERT INTO coin_lookups (coin_id, state) VALUES ('stranger', 'failed')", "'stranger', which nobody sent"),
    ],
)  # fmt: skip
def test_a_database_that_breaks_a_promise_is_told_on(
    connection: psycopg.Connection, told: list[Told], tampering: str, said: str
) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute(tampering.encode())
        assert any(said in violation for violation in violations(connection, told)), violations(connection, told)


@pytest.mark.parametrize(
    ("number", "lie", "said"),
    [
        (0, {"submission": 2, "accepted": 2, "duplicates": 1, "rejected": []}, "submission 2 was given to 2 clients"),
        (0, {"submission": 1, "accepted": 3, "duplicates": 0, "rejected": []}, "and it was (2, 1)"),
        (1, {"submission": 2, "accepted": 2, "duplicates": 0, "rejected": []}, "and the bad ids were at [1]"),
    ],
)  # fmt: skip
def test_an_answer_that_is_a_lie_is_told_on(
    connection: psycopg.Connection, told: list[Told], number: int, lie: dict[str, object], said: str
) -> None:
    told[number] = Told(coin_ids=told[number].coin_ids, status=202, answer=lie)
    assert any(said in violation for violation in violations(connection, told)), violations(connection, told)


def test_a_refused_post_that_landed_is_told_on(connection: psycopg.Connection, told: list[Told]) -> None:
    told[2] = Told(coin_ids=told[2].coin_ids, status=422)
    assert violations(connection, told) == ["submission 3 holds ['tether'], which nobody sent or was refused"]
