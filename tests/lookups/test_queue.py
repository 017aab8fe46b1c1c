"""The queue's rules: outcomes, the one transaction of a found coin, leases, slots and requeue."""

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from coin_pipeline.lookups.queue import LookupQueue, claim_slot, requeue, take_up_pending
from stack.standin.server import StandIn
from tests.conftest import RunningStandIn, stage
from tests.lookups.conftest import last_task_run, lookup_of, outcomes
from tests.lookups.engine import drain


@pytest.fixture
def queue(pool: ConnectionPool) -> LookupQueue:
    return LookupQueue(pool, run="run-1")


def lease_one(queue: LookupQueue) -> str:
    (lookup,) = queue.lease(wanted=1, concurrency=100)
    return lookup.coin_id


def find(connection: psycopg.Connection, queue: LookupQueue, coin_id: str, *exchanges: str) -> None:
    """Take a coin that is due all the way to `coins`."""
    take_up_pending(connection)
    assert lease_one(queue) == coin_id
    queue.record_found(coin_id, exchanges=exchanges, complete=True)


def end_as(connection: psycopg.Connection, queue: LookupQueue, coin_id: str, state: str) -> None:
    take_up_pending(connection)
    assert lease_one(queue) == coin_id
    if state == "unknown":
        queue.record_not_found(coin_id, state="unknown", status=404, error="coin not found")
    else:
        queue.record_not_found(coin_id, state="failed", status=503, error="503")


def age(connection: psycopg.Connection, coin_id: str, by: timedelta) -> None:
    connection.execute(
        "UPDATE coin_lookups SET looked_up_at = looked_up_at - %s, enqueued_at = enqueued_at - %s WHERE coin_id = %s",
        (by, by, coin_id),
    )


def test_the_smallest_pending_submission_gets_added_and_the_others_already_known(
    connection: psycopg.Connection, queue: LookupQueue
) -> None:
    for _ in range(3):
        stage(connection, "bitcoin")
    find(connection, queue, "bitcoin", "kraken", "binance")
    assert outcomes(connection) == {"bitcoin": ["added", "already_known", "already_known"]}
    assert connection.execute("SELECT id, exchanges FROM coins").fetchall() == [("bitcoin", ["binance", "kraken"])]
    assert lookup_of(connection, "bitcoin") == ("found", 1)


def test_a_coin_that_is_known_resolves_without_a_lease(connection: psycopg.Connection, queue: LookupQueue) -> None:
    stage(connection, "bitcoin")
    find(connection, queue, "bitcoin")
    stage(connection, "bitcoin")
    assert take_up_pending(connection) == 1
    assert outcomes(connection) == {"bitcoin": ["added", "already_known"]}
    assert queue.lease(wanted=1, concurrency=1) == []


def test_reconciling_looks_at_all_pending_rows_not_only_at_those_of_this_run(
    connection: psycopg.Connection, queue: LookupQueue
) -> None:
    stage(connection, "bitcoin")
    take_up_pending(connection)
    lease_one(queue)
    with psycopg.connect(connection.info.dsn) as receiver:
        stage(receiver, "bitcoin")  # inserted before the coin is recorded, and committed after
        queue.record_found("bitcoin", exchanges=[], complete=True)
    assert outcomes(connection) == {"bitcoin": ["added", None]}
    take_up_pending(connection)
    assert outcomes(connection) == {"bitcoin": ["added", "already_known"]}


@pytest.mark.parametrize(("state", "time_to_live"), [("unknown", timedelta(hours=24)), ("failed", timedelta(hours=1))])
def test_an_unknown_or_failed_id_is_remembered_for_its_time_to_live(
    connection: psycopg.Connection, queue: LookupQueue, state: str, time_to_live: timedelta
) -> None:
    stage(connection, "zyx")
    end_as(connection, queue, "zyx", state)
    age(connection, "zyx", time_to_live - timedelta(minutes=1))
    stage(connection, "zyx")
    take_up_pending(connection)
    assert outcomes(connection) == {"zyx": [state, state]}

    age(connection, "zyx", timedelta(minutes=2))
    stage(connection, "zyx")
    take_up_pending(connection)
    assert lookup_of(connection, "zyx") == ("pending", 0)
    assert outcomes(connection) == {"zyx": [state, state, None]}

    assert lease_one(queue) == "zyx"
    queue.record_found("zyx", exchanges=["kraken"], complete=True)
    assert outcomes(connection) == {"zyx": [state, state, "added"]}


def test_an_expired_lookup_that_nobody_wants_again_stays_as_it_is(
    connection: psycopg.Connection, queue: LookupQueue
) -> None:
    stage(connection, "zyx")
    end_as(connection, queue, "zyx", "unknown")
    age(connection, "zyx", timedelta(days=3))
    take_up_pending(connection)
    assert lookup_of(connection, "zyx")[0] == "unknown"


def test_an_expired_answer_resolves_nothing_while_another_run_revives_its_lookup(
    connection: psycopg.Connection, queue: LookupQueue
) -> None:
    stage(connection, "zyx")
    end_as(connection, queue, "zyx", "unknown")
    age(connection, "zyx", timedelta(hours=25))
    stage(connection, "zyx")
    with psycopg.connect(connection.info.dsn) as other_run:
        other_run.execute("SELECT FROM coin_lookups WHERE coin_id = 'zyx' FOR UPDATE")
        take_up_pending(connection)
        assert outcomes(connection) == {"zyx": ["unknown", None]}


def test_a_found_coin_is_one_transaction(connection: psycopg.Connection, queue: LookupQueue) -> None:
    stage(connection, "bitcoin")
    take_up_pending(connection)
    lease_one(queue)
    connection.execute("ALTER TABLE coins ADD CONSTRAINT refused CHECK (id <> 'bitcoin')")
    try:
        with pytest.raises(psycopg.errors.CheckViolation):
            queue.record_found("bitcoin", exchanges=[], complete=True)
    finally:
        connection.execute("ALTER TABLE coins DROP CONSTRAINT refused")
    assert lookup_of(connection, "bitcoin") == ("pending", 0)
    assert outcomes(connection) == {"bitcoin": [None]}


def test_looking_up_a_hundred_known_ids_again_wastes_no_task_run(
    connection: psycopg.Connection, queue: LookupQueue
) -> None:
    coin_ids = [f"coin-{number:03}" for number in range(100)]
    stage(connection, *coin_ids)
    take_up_pending(connection)
    for lookup in queue.lease(wanted=100, concurrency=100):
        queue.record_found(lookup.coin_id, exchanges=[], complete=True)
    assert last_task_run(connection) == 100

    stage(connection, *coin_ids)
    take_up_pending(connection)
    assert queue.lease(wanted=100, concurrency=100) == []
    connection.execute("UPDATE coin_lookups SET state = 'pending'")  # not even when they are asked for again
    for lookup in queue.lease(wanted=100, concurrency=100):
        queue.record_found(lookup.coin_id, exchanges=[], complete=True)
    assert last_task_run(connection) == 100
    task_runs = connection.execute("SELECT task_run FROM coins ORDER BY task_run").fetchall()
    assert [task_run for (task_run,) in task_runs] == list(range(1, 101))


def test_a_lease_is_exclusive_and_only_its_holder_records(
    connection: psycopg.Connection, pool: ConnectionPool, queue: LookupQueue
) -> None:
    other = LookupQueue(pool, run="run-2")
    stage(connection, "bitcoin")
    take_up_pending(connection)
    lease_one(queue)
    assert other.lease(wanted=1, concurrency=100) == []

    connection.execute("UPDATE coin_lookups SET leased_until = now() - interval '1 second'")
    assert lease_one(other) == "bitcoin"
    queue.record_not_found("bitcoin", state="unknown", status=404, error="too late")
    queue.release("bitcoin")
    assert lookup_of(connection, "bitcoin") == ("pending", 0)
    other.record_found("bitcoin", exchanges=[], complete=True)
    assert lookup_of(connection, "bitcoin") == ("found", 1)


def test_runs_that_lease_at_the_same_moment_hold_no_more_leases_than_the_concurrency(
    connection: psycopg.Connection, pool: ConnectionPool, together: Callable[[list[Callable[[], object]]], None]
) -> None:
    stage(connection, *(f"coin-{number}" for number in range(100)))
    take_up_pending(connection)
    queues = [LookupQueue(pool, run=f"run-{number}") for number in range(8)]
    for round_ in range(1, 11):  # the statements of the later rounds are prepared ones
        together([lambda queue=queue: queue.lease(wanted=4, concurrency=5) for queue in queues])  # type: ignore[misc]
        held = connection.execute("SELECT count(*) FROM coin_lookups WHERE leased_until > now()").fetchall()
        assert held == [(5,)], round_
        connection.execute("UPDATE coin_lookups SET leased_until = NULL")


def test_all_runs_together_hold_no_more_leases_than_the_concurrency(
    connection: psycopg.Connection, pool: ConnectionPool, queue: LookupQueue
) -> None:
    stage(connection, *"abcdef")
    take_up_pending(connection)
    other = LookupQueue(pool, run="run-2")
    assert [lookup.coin_id for lookup in queue.lease(wanted=3, concurrency=4)] == ["a", "b", "c"]
    assert [lookup.coin_id for lookup in other.lease(wanted=4, concurrency=4)] == ["d"]
    queue.record_found("a", exchanges=[], complete=True)
    assert [lookup.coin_id for lookup in other.lease(wanted=4, concurrency=4)] == ["e"]


def test_a_heartbeat_renews_the_leases_of_its_own_run_only(
    connection: psycopg.Connection, pool: ConnectionPool, queue: LookupQueue
) -> None:
    other = LookupQueue(pool, run="run-2")
    stage(connection, "mine", "theirs")
    take_up_pending(connection)
    assert lease_one(queue) == "mine"
    assert lease_one(other) == "theirs"
    connection.execute("UPDATE coin_lookups SET leased_until = now() + interval '1 second'")
    queue.renew_leases()
    held = connection.execute("SELECT coin_id FROM coin_lookups WHERE leased_until > now() + interval '5 s'")
    assert held.fetchall() == [("mine",)]


def test_an_interrupted_lookup_goes_on_at_its_next_page_unless_that_is_long_ago(
    connection: psycopg.Connection, queue: LookupQueue
) -> None:
    stage(connection, "bitcoin")
    take_up_pending(connection)
    lease_one(queue)
    queue.record_page("bitcoin", page=1, exchanges=["binance"])
    queue.release("bitcoin")
    (lookup,) = queue.lease(wanted=1, concurrency=1)
    assert (lookup.next_page, lookup.exchanges_so_far) == (2, ["binance"])

    connection.execute("UPDATE coin_lookups SET leased_until = now() - interval '11 minutes'")
    (lookup,) = queue.lease(wanted=1, concurrency=1)
    assert (lookup.next_page, lookup.exchanges_so_far) == (1, [])


def test_a_slot_is_free_again_when_its_run_frees_it_or_falls_silent(
    connection: psycopg.Connection, queue: LookupQueue
) -> None:
    def claim(run: str) -> bool:
        return claim_slot(connection, run=run, slots=1, hold=timedelta(seconds=30))

    assert claim("run-1")
    assert not claim("run-2")
    assert claim("run-1")
    queue.hold_slot()
    queue.free_slot()
    assert claim("run-2")
    connection.execute("UPDATE lookup_runs SET slot_until = now() WHERE id = 'run-2'")
    assert claim("run-3")


@pytest.mark.parametrize("state", ["failed", "unknown"])
def test_requeue_brings_lookups_and_their_staged_rows_back(
    connection: psycopg.Connection, queue: LookupQueue, state: str
) -> None:
    for coin_id in ("a", "b"):
        stage(connection, coin_id)
        end_as(connection, queue, coin_id, state)
    assert requeue(connection, state="failed" if state == "failed" else "unknown", coin_ids=["b"]) == ["b"]
    assert outcomes(connection) == {"a": [state], "b": [None]}
    assert lookup_of(connection, "b") == ("pending", 0)
    assert requeue(connection, state="failed" if state == "failed" else "unknown") == ["a"]
    assert outcomes(connection) == {"a": [None], "b": [None]}


def test_requeue_leaves_other_states_alone(connection: psycopg.Connection, queue: LookupQueue) -> None:
    stage(connection, "known")
    find(connection, queue, "known")
    stage(connection, "typo")
    end_as(connection, queue, "typo", "unknown")
    assert requeue(connection, state="failed") == []
    assert outcomes(connection) == {"known": ["added"], "typo": ["unknown"]}


def test_runs_that_take_up_the_same_ids_together_do_not_deadlock(
    connection: psycopg.Connection, pool: ConnectionPool, together: Callable[[list[Callable[[], object]]], None]
) -> None:
    for number in range(20):
        stage(connection, *(f"coin-{(number * 7 + offset) % 100:03}" for offset in range(50)))

    def take_up() -> None:
        with pool.connection() as mine:
            take_up_pending(mine)

    together([take_up] * 6)
    assert connection.execute("SELECT count(*) FROM coin_lookups").fetchall() == [(100,)]


def test_a_coin_that_was_deleted_by_hand_is_looked_up_again(
    connection: psycopg.Connection, pool: ConnectionPool, start_standin: Callable[[StandIn], RunningStandIn]
) -> None:
    base_url = start_standin(StandIn(calls_per_window=0, latency_seconds=0)).base_url
    stage(connection, "monacoin")
    drain(pool, base_url)
    connection.execute("DELETE FROM coins")
    stage(connection, "monacoin")
    drain(pool, base_url)
    assert outcomes(connection) == {"monacoin": ["added", "added"]}
