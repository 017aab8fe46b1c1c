"""From staged ids to the table `coins`."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import dagster as dg
from psycopg_pool import ConnectionPool

from coin_pipeline.alerts import send_alert
from coin_pipeline.coingecko.budget import RateBudget
from coin_pipeline.coingecko.errors import CoinGeckoUnavailableError, RefusedError
from coin_pipeline.defs.enrichment.jobs import COINS_TAG, lookup_run_of
from coin_pipeline.defs.marts.assets import MARTS
from coin_pipeline.defs.relations import LOOKED_AT, relation
from coin_pipeline.defs.retries import RetryUnlessInterrupted
from coin_pipeline.lookups.catalog import Catalog
from coin_pipeline.lookups.drain import Drain, DrainLimits, DrainReport
from coin_pipeline.lookups.queue import LookupQueue
from coin_pipeline.lookups.settling import Ending
from coin_pipeline.resources import Database, create_client
from coin_pipeline.settings import PipelineSettings
from sql import query

# For a moment's outage of the database. At most 4 s: nothing can interrupt Dagster's wait. An outage of CoinGecko is a
# pause, after which the sensor starts another run.
RETRIES = RetryUnlessInterrupted(max_retries=2, delay=1, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
CATALOG = dg.AssetKey("coin_catalog")
ATTRIBUTION = "Data provided by [CoinGecko](https://www.coingecko.com)."  # as its terms ask


@dg.multi_asset(
    name="look_up_coins",
    # One step for all: one of its own for what is pending would keep every coin waiting for a tenth of a second, and
    # each step leaves events. The marts are views of `coins`: what is written there is in them.
    specs=[
        dg.AssetSpec(
            "pending_coins",
            group_name="enrichment",
            kinds={"postgres"},
            deps=["staged_coins"],
            skippable=True,
            description=(
                "Not a table: the rows of `staged_coins` that had no outcome when the run began. Each gets a lookup, "
                "or its outcome at no call where the answer is known already."
            ),
        ),
        relation(
            "coin_catalog",
            group="enrichment",
            written_by={"coingecko"},
            description=(
                "The ids that CoinGecko lists, asked for before the lookups when there are new ids that were never "
                f"compared with a list: what it lists is looked up first. {ATTRIBUTION}"
            ),
        ),
        relation(
            "coin_lookups",
            group="enrichment",
            written_by={"coingecko"},
            deps=["pending_coins", "coin_catalog"],
            description=(
                "One row per distinct id ever wanted: work queue, memory of unknown ids, dead letters. "
                "Materializing it asks CoinGecko for every id that is due, within the minute's limit and the month's "
                f"credit. {LOOKED_AT} {ATTRIBUTION}"
            ),
        ),
        relation(
            "coins",
            group="enrichment",
            deps=["coin_lookups"],
            description=(
                "The final table: which exchanges list the coin. A coin is written in the same transaction as its "
                f"lookup, the moment CoinGecko has answered. {LOOKED_AT} {ATTRIBUTION}"
            ),
        ),
        *MARTS,
    ],
    retry_policy=RETRIES,
)
def look_up_coins(
    context: dg.AssetExecutionContext,
    database: dg.ResourceParam[Database],
    settings: dg.ResourceParam[PipelineSettings],
) -> Iterator[dg.MaterializeResult[None]]:
    """Take up what the receiver has staged, and drain the queue of lookups.

    What was done is logged and not yielded: Dagster keeps a result once as an output and once as a materialization,
    whose provenance is longer than what it says. A run for one coin keeps 24 kB this way, and 37 kB with results. Of a
    step that fails, only what it has yielded is kept.
    """
    oldest, measured = database.read_together(query("assets/preview_pending_coins"), query("assets/measure_pending"))
    pending = {
        "dagster/row_count": measured.only["pending"],
        "oldest_pending_seconds": round(measured.only["oldest_pending_seconds"], 1),
    }
    if lookup_run_of(context.run) == context.run.run_id:  # no sensor has said so
        context.instance.add_run_tags(context.run.run_id, {COINS_TAG: f"{measured.only['pending']} pending"})
    try:
        report = drain_lookups(context, database, settings)
    except Exception:  # an outage is when people look for it
        yield dg.MaterializeResult(asset_key="pending_coins", metadata={**pending, **oldest.preview("oldest")})
        raise
    log_materialization(context, "pending_coins", pending)
    if report.listed is not None or context.instance.get_latest_materialization_event(CATALOG) is None:
        # When it was renewed, and once before: without any, the UI takes `coin_lookups` for outdated.
        log_materialization(context, CATALOG.to_user_string(), show_catalog(database))
    context.log.info(summary_of(report))
    context.instance.add_run_tags(context.run.run_id, {COINS_TAG: result_of(report)})
    alert_of_dead_letters(database, settings, failed=report.lookups[Ending.FAILED], log=context.log)
    measured, latest, dead_letters, newest = database.read_together(
        query("assets/measure_pending"),
        query("assets/preview_latest_lookups"),
        query("assets/preview_dead_letters"),
        query("assets/preview_coins"),
    )
    counts = {
        **{ending.value: report.lookups[ending] for ending in Ending},
        "rate_limited": report.rate_limited,
        "skipped_tickers": report.skipped_tickers,
        "resolved_without_call": report.resolved_without_call,
    }
    figures = {
        **{name: count for name, count in counts.items() if count},
        "calls": report.calls,
        "seconds": round(report.seconds, 1),
        "pending": measured.only["pending"],
    }
    previews = {**dead_letters.preview("dead_letters"), **latest.preview("answered_last")}
    log_materialization(context, "coin_lookups", {**figures, **previews})
    coins = {"new_coins": report.lookups[Ending.FOUND], **newest.preview("newest")}
    log_materialization(context, "coins", coins)
    for mart in MARTS:
        log_materialization(context, mart.key.to_user_string(), {})


def log_materialization(context: dg.AssetExecutionContext, key: str, metadata: Mapping[str, Any]) -> None:
    """Say that an asset was materialized: what it depends on first, else the UI takes it for outdated."""
    context.log_event(dg.AssetMaterialization(key, metadata=metadata))


def show_catalog(database: Database) -> dict[str, Any]:
    """Show the list that was received."""
    catalog, newest = database.read_together(query("assets/count_catalog"), query("assets/preview_catalog"))
    return {"dagster/row_count": catalog.only["coins"], **newest.preview("newest")}


def drain_lookups(context: dg.AssetExecutionContext, database: Database, settings: PipelineSettings) -> DrainReport:
    """Ask CoinGecko for every id that is due.

    Raises:
        dg.Failure: a pause, which ends this run, or another run that has the slot which this one had before its retry.
    """
    run = lookup_run_of(context.run)
    with database.pool(size=settings.coingecko_concurrency + 3) as pool, closing(create_client(settings)) as client:
        queue = LookupQueue(pool, run=run)
        budget = RateBudget(pool, calls_per_minute=settings.calls_per_minute, account=settings.account)
        check_pause(pool)  # now that another key or setting has ended what the one before had met
        if context.retry_number:
            claim_again(queue, slots=settings.lookup_runs)
        elif run == context.run.run_id:
            take_slot(context, database, queue, slots=settings.lookup_runs)
        drain = Drain(
            queue=queue,
            catalog=Catalog(pool),
            budget=budget,
            client=client,
            log=context.log,
            limits=DrainLimits(
                concurrency=settings.coingecko_concurrency,
                max_pages=settings.coingecko_max_pages,
                refresh_after=settings.refresh_after,
            ),
        )
        try:
            return drain.run()
        except (RefusedError, CoinGeckoUnavailableError) as error:
            raise dg.Failure(str(error), allow_retries=False) from error


def check_pause(pool: ConnectionPool[Any]) -> None:
    """Go on unless everything is paused; the sensor starts a run when that is over.

    Raises:
        dg.Failure: it is.
    """
    with pool.connection() as connection:
        row = connection.execute(query("sensor/read_pause")).fetchone()
    if row:
        raise dg.Failure(f"Nothing was done, since nothing is asked for now: {row[0]}", allow_retries=False)


def claim_again(queue: LookupQueue, *, slots: int) -> None:
    """Claim a slot for an attempt after the first, which gave its own back.

    Raises:
        dg.Failure: there is none: the sensor starts another run when one is needed.
    """
    if not queue.claim_slot(slots=slots):
        raise dg.Failure("Another run looks coins up by now.", allow_retries=False)


def take_slot(context: dg.AssetExecutionContext, database: Database, queue: LookupQueue, *, slots: int) -> None:
    """Claim a slot for a run that was started by hand: the sensor has taken none for it.

    Raises:
        dg.Failure: there is none; it names the runs that have them.
    """
    if queue.claim_slot(slots=slots):
        return
    held = {run for (run,) in database.read(query("sensor/list_lookup_runs")).rows}
    under_way = context.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    holders = [run.run_id for run in under_way if lookup_run_of(run) in held]
    raise dg.Failure(
        f"Nothing was done: the run {' and '.join(holders) or 'that is about to start'} looks coins up already",
        allow_retries=False,
    )


def alert_of_dead_letters(database: Database, settings: PipelineSettings, *, failed: int, log: logging.Logger) -> None:
    """Tell the webhook, if this drain has given up on any coin."""
    webhook = settings.alert_webhook_url
    if failed and webhook:
        with database.connect() as connection:
            send_alert(
                connection,
                webhook_url=webhook.get_secret_value(),
                cause="dead letters",
                text=f"{failed} coins could not be looked up; coins requeue --all brings them back.",
                log=log,
            )


def result_of(report: DrainReport) -> str:
    """Say in a few words what became of the coins."""
    counts = {
        **{ending.value.replace("_", " "): report.lookups[ending] for ending in Ending},
        "known already": report.resolved_without_call,
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "none due"


def summary_of(report: DrainReport) -> str:
    """Say in one line what a drain did."""
    lookups = ", ".join(f"{report.lookups[ending]} {ending.value.replace('_', ' ')}" for ending in Ending)
    return (
        f"{lookups}; {report.calls} calls in {report.seconds:.1f} s, {report.rate_limited} answered 429; "
        f"{report.resolved_without_call} staged rows resolved without a call"
    )
