"""Pruning and alerts, on a real database and a real webhook."""

import json
import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from pydantic import SecretStr

from coin_pipeline.alerts import send_alert
from coin_pipeline.coingecko.budget import Account, set_limits
from coin_pipeline.definitions import defs
from coin_pipeline.defs.enrichment.assets import alert_of_dead_letters
from coin_pipeline.defs.operations.alerts import CreditUsed, alert_of, credit_alert, run_failure_alert
from coin_pipeline.defs.operations.checks import is_overdue
from coin_pipeline.defs.operations.jobs import prune
from coin_pipeline.resources import Database
from coin_pipeline.settings import PipelineSettings
from stack.postgres import EmbeddedPostgres
from tests.conftest import create_database, stage


@pytest.fixture
def settings(connection: psycopg.Connection, database_url: str) -> PipelineSettings:
    """The settings of this module's database, emptied."""
    return PipelineSettings(database_url=database_url)


@pytest.fixture
def resources(settings: PipelineSettings) -> dict[str, object]:
    return {"settings": settings, "database": Database(url=settings.database_url)}


class Webhook:
    """A chat that keeps what it is told, or refuses it."""

    def __init__(self) -> None:
        self.status = 200
        self.received: list[dict[str, str]] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if webhook.status == 200:
                    webhook.received.append(json.loads(body))
                self.send_response(webhook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


LOG = logging.getLogger("alerts")


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    thread = threading.Thread(target=webhook.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield webhook
    webhook.server.shutdown()
    thread.join()
    webhook.server.server_close()


def test_old_submissions_go_with_all_their_rows_once_everything_is_resolved(
    resources: dict[str, object], connection: psycopg.Connection
) -> None:
    old_and_done, old_and_pending, old_but_resolved_late, young = (
        stage(connection, f"coin-{n}", "b") for n in range(4)
    )
    connection.execute("INSERT INTO rejected_coins SELECT id, 9, 'x', 'bad' FROM submissions")
    connection.execute("UPDATE submissions SET received_at = now() - interval '31 days' WHERE id <> %s", (young,))
    connection.execute(
        "UPDATE staged_coins SET outcome = 'unknown', resolved_at = now() - interval '31 days'"
        " WHERE submission_id <> %s",
        (old_and_pending,),
    )
    connection.execute(
        "UPDATE staged_coins SET resolved_at = now() WHERE submission_id = %s AND coin_id = 'b'",
        (old_but_resolved_late,),
    )
    with dg.DagsterInstance.ephemeral() as instance:
        assert prune.execute_in_process(instance=instance, resources=resources).success
    kept = [(old_and_pending,), (old_but_resolved_late,), (young,)]
    assert connection.execute("SELECT id FROM submissions ORDER BY id").fetchall() == kept
    for table in ("staged_coins", "rejected_coins"):
        rows = connection.execute(f"SELECT DISTINCT submission_id FROM {table} ORDER BY 1".encode())
        assert rows.fetchall() == kept
    assert old_and_done not in {row[0] for row in kept}


def test_old_finished_runs_go_and_all_they_left_with_them(
    resources: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        first = prune.execute_in_process(instance=instance, resources=resources)
        assert instance.get_run_by_id(first.run_id) is not None
        assert list(tmp_path.rglob(f"{first.run_id}/**/*.err")) != []
        monkeypatch.setattr("coin_pipeline.defs.operations.jobs.timedelta", lambda **_: timedelta(seconds=0))
        second = prune.execute_in_process(instance=instance, resources=resources)
        assert instance.get_run_by_id(first.run_id) is None
        assert instance.all_logs(first.run_id) == []
        assert list(tmp_path.rglob(first.run_id)) == []
        assert instance.get_run_by_id(second.run_id) is not None


def test_no_table_of_dagsters_database_grows_for_ever_and_each_check_keeps_its_last_result(
    postgres: EmbeddedPostgres, resources: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = create_database(postgres, "retention_dagster")
    (tmp_path / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: {json.dumps(url)}}}}}")
    monkeypatch.setattr("coin_pipeline.defs.operations.jobs.timedelta", lambda **_: timedelta(seconds=0))

    def rows() -> dict[str, int]:
        with psycopg.connect(url) as dagster:
            tables = dagster.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            return {
                name: dagster.execute(f"SELECT count(*) FROM {name}".encode()).fetchall()[0][0] for (name,) in tables
            }

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:

        def look_and_prune(*, looks: int) -> None:
            for _ in range(looks):
                assert defs.resolve_job_def("health").execute_in_process(instance=instance, resources=resources).success
            assert prune.execute_in_process(instance=instance, resources=resources).success

        look_and_prune(looks=1)
        before = rows()
        look_and_prune(looks=2)
        assert rows() == before
        assert before["asset_check_executions"] == 7
        keys = list(defs.resolve_asset_graph().asset_check_keys)
        latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
        assert {record.status.value for record in latest.values()} == {"SUCCEEDED"}
        assert latest.keys() == set(keys)


def test_a_time_limit_that_cannot_be_read_is_that_of_the_instance(resources: dict[str, object]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        tags = {dg.MAX_RUNTIME_SECONDS_TAG: "soon"}
        assert prune.execute_in_process(instance=instance, resources=resources, tags=tags).success
        (record,) = instance.get_run_records()
    assert [is_overdue(record, at_most=seconds) for seconds in (0.0001, 3600, 0)] == [True, False, False]


def test_one_cause_is_alerted_once_in_ten_minutes(connection: psycopg.Connection, webhook: Webhook) -> None:
    def alert(cause: str) -> bool:
        return send_alert(connection, webhook_url=webhook.url, cause=cause, text=f"{cause}!")

    assert [alert("a"), alert("a"), alert("b")] == [True, False, True]
    connection.execute("UPDATE alerts SET sent_at = now() - interval '10 minutes'")
    assert alert("a")
    assert webhook.received == [{"text": "a!"}, {"text": "b!"}, {"text": "a!"}]


def test_an_alert_that_does_not_arrive_is_sent_the_next_time(
    connection: psycopg.Connection, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    webhook.status = 500
    assert not send_alert(connection, webhook_url=webhook.url, cause="a", text="first")
    assert webhook.url not in caplog.text
    webhook.status = 200
    assert send_alert(connection, webhook_url=webhook.url, cause="a", text="second")
    assert webhook.received == [{"text": "second"}]


@pytest.mark.parametrize(
    ("webhook_url", "environment", "says"),
    [
        ("https://127.0.0.1:1/SECRET", {"REQUESTS_CA_BUNDLE": "/gone.pem"}, "/gone.pem"),
        ("https://127.0.0.1:1/SECRET", {}, "Connection refused"),
        (
            "https://hooks.invalid/SECRET",
            {"https_proxy": "http://u:SECRET@127.0.0.1:1"},
            "through the proxy 127.0.0.1:1",
        ),
        ("https://hooks.invalid/SECRET", {}, "cannot reach the webhook"),
        ("https://a..b/SECRET", {}, "cannot reach the webhook"),
        ("no-url/SECRET", {}, "cannot reach the webhook"),
        ("http://[::1/SECRET", {}, "did not answer"),
    ],
)
def test_whatever_keeps_an_alert_from_arriving_has_a_reason_and_leaves_no_claim(
    connection: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    webhook_url: str,
    environment: dict[str, str],
    says: str,
) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert not send_alert(connection, webhook_url=webhook_url, cause="a", text="first")
    assert says in caplog.text
    assert "SECRET" not in caplog.text
    assert connection.execute("TABLE alerts").fetchall() == []


@pytest.mark.parametrize("status", [301, 403, 500])
def test_an_alert_that_is_answered_otherwise_has_not_arrived(
    connection: psycopg.Connection, webhook: Webhook, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    webhook.status = status
    assert not send_alert(connection, webhook_url=webhook.url, cause="a", text="first")
    assert str(status) in caplog.text
    assert connection.execute("TABLE alerts").fetchall() == []


def test_dead_letters_are_alerted(settings: PipelineSettings, webhook: Webhook) -> None:
    database = Database(url=settings.database_url)
    alert_of_dead_letters(database, settings, failed=2, log=LOG)
    with_webhook = settings.model_copy(update={"alert_webhook_url": SecretStr(webhook.url)})
    alert_of_dead_letters(database, with_webhook, failed=0, log=LOG)
    assert webhook.received == []
    alert_of_dead_letters(database, with_webhook, failed=2, log=LOG)
    (alert,) = webhook.received
    assert alert["text"].startswith("2 coins could not be looked up")


def test_a_failed_run_is_alerted(settings: PipelineSettings, webhook: Webhook) -> None:
    with_webhook = settings.model_copy(update={"alert_webhook_url": SecretStr(webhook.url)})

    @dg.op
    def fail() -> None:
        raise RuntimeError("no luck")

    @dg.job
    def unlucky() -> None:
        fail()

    with dg.DagsterInstance.ephemeral() as instance:
        result = unlucky.execute_in_process(instance=instance, raise_on_error=False)
        context = dg.build_run_status_sensor_context(
            sensor_name="run_failure_alert",
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            dagster_event=result.get_run_failure_event(),
        ).for_run_failure()
        run_failure_alert(context, database=Database(url=settings.database_url), settings=with_webhook)
    (alert,) = webhook.received
    assert "unlucky failed" in alert["text"]
    assert result.run_id in alert["text"]


@pytest.mark.parametrize(
    ("used", "credit", "end_reason", "says"),
    [
        (79, 100, None, None),
        (80, 100, None, "80 of the 100 calls to CoinGecko of May 2027 are used up; 20 are left, enough for 2.5 days"),
        (100, 100, "the 100 calls of May 2027 are used up", "No coin is looked up: the 100 calls of May 2027"),
        (3, 0, "CoinGecko says so", "No coin is looked up: CoinGecko says so."),
        (1_000_000, 0, None, None),
    ],
)
def test_a_month_that_runs_out_is_alerted(used: int, credit: int, end_reason: str | None, says: str | None) -> None:
    alert = alert_of(
        CreditUsed(account="a", month="May 2027", used=used, credit=credit, lasts_days=2.5, end_reason=end_reason)
    )
    assert alert is None if says is None else says in (alert or ("", ""))[1]


def test_each_mark_of_a_month_is_alerted_once(
    settings: PipelineSettings, connection: psycopg.Connection, webhook: Webhook
) -> None:
    with_webhook = settings.model_copy(update={"alert_webhook_url": SecretStr(webhook.url)})
    account = Account(id="a", calls_per_month=100)

    def look(*, used: int) -> None:
        set_limits(connection, calls_per_minute=0, account=account)
        connection.execute("DELETE FROM call_credit")
        connection.execute("INSERT INTO call_credit (account, month, used) VALUES ('a', month_of(now()), %s)", (used,))
        resources = {"database": Database(url=settings.database_url), "settings": with_webhook}
        credit_alert(dg.build_sensor_context(resources=resources))

    for used in (10, 80, 81, 100, 100):
        look(used=used)
        connection.execute("UPDATE alerts SET sent_at = sent_at - interval '20 days'")
    texts = [alert["text"] for alert in webhook.received]
    assert len(texts) == 2
    assert texts[0].startswith("80 of the 100 calls")
    assert texts[1].startswith("No coin is looked up: the 100 calls of")
