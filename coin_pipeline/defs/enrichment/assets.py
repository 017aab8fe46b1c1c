"""From staged ids to the table `coins`."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import dagster as dg

from coin_pipeline.alerts import send_alert
from coin_pipeline.catalog import renew_catalog
from coin_pipeline.coingecko.budget import RateBudget
from coin_pipeline.coingecko.errors import CoinGeckoError, CoinGeckoUnavailableError, RefusedError
from coin_pipeline.defs import OWNERS, TAGS
from coin_pipeline.defs.enrichment.jobs import LOOKUP_RUN_TAG
from coin_pipeline.lookup_queue import LookupQueue
from coin_pipeline.lookups import Drain, DrainLimits, DrainReport, Ending
from coin_pipeline.resources import CoinGeckoResource, DatabaseResource
from coin_pipeline.settings import read_settings
from sql import query

# For outages of CoinGecko (the breaker lets one probe through every 30 s) and of the database.
OUTAGE_RETRIES = dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
RETRY_HOLD = timedelta(seconds=60)  # keeps the slot while the run waits for its retry


@dg.multi_asset(
    name="look_up_coins",
    # One step for all three: one of its own for what is pending would keep every coin waiting for a tenth of a second.
    specs=[
        dg.AssetSpec(
            "pending_coins",
            deps=["staged_coins"],
            group_name="enrichment",
            owners=OWNERS,
            tags=TAGS,
            kinds={"postgres", "table"},
            description=(
                "Staged ids that had no outcome when the run began. Each gets a lookup, or its outcome at no call "
                "where the answer is known already."
            ),
        ),
        dg.AssetSpec(
            "coin_lookups",
            deps=["pending_coins"],
            group_name="enrichment",
            owners=OWNERS,
            tags=TAGS,
            kinds={"coingecko", "postgres", "table"},
            description=(
                "One row per distinct id ever wanted: work queue, memory of unknown ids, dead letters. "
                "Materializing it asks CoinGecko for every id that is due, within the rate budget."
            ),
        ),
        dg.AssetSpec(
            "coins",
            deps=["coin_lookups"],
            group_name="enrichment",
            owners=OWNERS,
            tags=TAGS,
            kinds={"postgres", "table"},
            description=(
                "The final table: which exchanges list the coin. A coin is written in the same transaction as its "
                "lookup, the moment CoinGecko has answered."
            ),
        ),
    ],
    retry_policy=OUTAGE_RETRIES,
)
def look_up_coins(
    context: dg.AssetExecutionContext, database: DatabaseResource, coingecko: CoinGeckoResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Take up what the receiver has staged, and drain the queue of lookups."""
    pending = show_pending(database)
    try:
        report = drain_lookups(context, database, coingecko)
    except Exception:
        yield pending  # an outage is when people look for it
        raise
    yield pending
    context.log.info(summary_of(report))
    alert_of_dead_letters(database, failed=report.lookups[Ending.FAILED])
    status, lookups, latest, dead_letters, newest, waits = database.read_together(
        query("read_status"),
        query("count_lookups"),
        query("preview_latest_lookups"),
        query("preview_dead_letters"),
        query("preview_coins"),
        query("measure_waits"),
    )
    yield dg.MaterializeResult(
        asset_key="coin_lookups",
        metadata={
            "dagster/row_count": lookups.only["lookups"],
            "dagster/column_schema": database.column_schema("coin_lookups"),
            **{ending.value: report.lookups[ending] for ending in Ending},
            "calls": report.calls,
            "rate_limited": report.rate_limited,
            "skipped_tickers": report.skipped_tickers,
            "resolved_without_call": report.resolved_without_call,
            "seconds": round(report.seconds, 1),
            "pending": status.only["pending"],
            "dead_letters": dead_letters.preview(),
            "answered_last": latest.preview(),
        },
    )
    yield dg.MaterializeResult(
        asset_key="coins",
        metadata={
            "dagster/row_count": status.only["coins"],
            "dagster/column_schema": database.column_schema("coins"),
            "new_coins": report.lookups[Ending.FOUND],
            **{f"post_to_row_{name}": round(value, 3) for name, value in waits.only.items() if value is not None},
            "newest": newest.preview(),
        },
    )


@dg.asset(
    group_name="enrichment",
    owners=OWNERS,
    tags=TAGS,
    kinds={"coingecko", "postgres", "table"},
    # The last step of a run: the list is never asked for ahead of a lookup that the run can make.
    op_tags={"dagster/priority": "-1"},
    description=(
        "The ids that CoinGecko lists, asked for at most hourly, at the cost of a call. What it lists is looked up "
        "first, so that mistyped ids do not delay real ones."
    ),
)
def coin_catalog(
    context: dg.AssetExecutionContext, database: DatabaseResource, coingecko: CoinGeckoResource
) -> dg.MaterializeResult[None]:
    """Renew the list of coins when it is an hour old."""
    with database.pool(size=2) as pool, closing(coingecko.create_client()) as client:
        budget = RateBudget(pool, calls_per_minute=coingecko.calls_per_minute)
        try:
            listed = renew_catalog(pool, budget=budget, client=client)
        except RefusedError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        except CoinGeckoError as error:
            context.log.warning("The old list of coins serves for another hour: %s", error)
            listed = None
    catalog, newest = database.read_together(query("count_catalog"), query("preview_catalog"))
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": catalog.only["coins"],
            "dagster/column_schema": database.column_schema("coin_catalog"),
            "renewed": listed is not None,
            "newest": newest.preview(),
        }
    )


def show_pending(database: DatabaseResource) -> dg.MaterializeResult[None]:
    """Show which staged ids have no outcome now."""
    oldest, status = database.read_together(query("preview_pending_coins"), query("read_status"))
    return dg.MaterializeResult(
        asset_key="pending_coins",
        metadata={
            "dagster/row_count": status.only["pending"],
            "dagster/column_schema": oldest.schema,
            "oldest_pending_seconds": round(status.only["oldest_pending_seconds"] or 0.0, 1),
            "oldest": oldest.preview(),
        },
    )


def drain_lookups(
    context: dg.AssetExecutionContext, database: DatabaseResource, coingecko: CoinGeckoResource
) -> DrainReport:
    """Ask CoinGecko for every id that is due, and keep the slot for a retry after an outage."""
    run = context.run.tags.get(LOOKUP_RUN_TAG, context.run.run_id)
    with database.pool(size=coingecko.concurrency + 2) as pool, closing(coingecko.create_client()) as client:
        queue = LookupQueue(pool, run=run)
        drain = Drain(
            queue=queue,
            budget=RateBudget(pool, calls_per_minute=coingecko.calls_per_minute),
            client=client,
            log=context.log,
            limits=DrainLimits(
                concurrency=coingecko.concurrency,
                max_pages=coingecko.max_pages,
                refresh_after=timedelta(days=coingecko.refresh_after_days) if coingecko.refresh_after_days else None,
            ),
        )
        try:
            return drain.run()
        except RefusedError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        except CoinGeckoUnavailableError:
            if context.retry_number < OUTAGE_RETRIES.max_retries:
                queue.hold_slot(hold=RETRY_HOLD)
            raise


def alert_of_dead_letters(database: DatabaseResource, *, failed: int) -> None:
    """Tell the webhook, if this drain has given up on any coin."""
    webhook = read_settings().alert_webhook_url
    if failed and webhook:
        with database.connect() as connection:
            send_alert(
                connection,
                webhook_url=webhook.get_secret_value(),
                cause="dead letters",
                text=f"{failed} coins could not be looked up; coins requeue brings them back.",
            )


def summary_of(report: DrainReport) -> str:
    """Say in one line what a drain did."""
    lookups = ", ".join(f"{report.lookups[ending]} {ending.value.replace('_', ' ')}" for ending in Ending)
    return (
        f"{lookups}; {report.calls} calls in {report.seconds:.1f} s, {report.rate_limited} answered 429; "
        f"{report.resolved_without_call} staged rows resolved without a call"
    )
