"""Checks on the queue of lookups and on the final table."""

from datetime import timedelta

import dagster as dg

from coin_pipeline.defs.checks import check, in_one_step
from coin_pipeline.previews import shown
from coin_pipeline.resources import Database, Rows
from sql import query

STUCK_AFTER = timedelta(minutes=10)
LATEST_LOOKUPS = 1000
MOST_FAILED = 0.05  # share of the latest lookups


@check(
    on=["coins"],
    description="In `coins`, no id is empty, and exchanges are sorted, distinct and named.",
)
def coins_are_well_formed(database: Database) -> dg.AssetCheckResult:
    """Look for rows that break a promise of the table."""
    return _none_of(database.read(query("checks/find_malformed_coins")))


@check(
    on=["coins", "staged_coins"],
    description=(
        "An id that was `added` or `already_known` has a row in `coins`; one that was `unknown` or `failed` had none "
        "when it was resolved."
    ),
)
def outcomes_are_true(database: Database) -> dg.AssetCheckResult:
    """Look for outcomes that the table contradicts."""
    return _none_of(database.read(query("checks/find_contradicting_outcomes")))


@check(
    on=["coin_lookups"],
    description="Red when something is due, nothing is paused, and nothing was resolved for ten minutes.",
)
def nothing_is_stuck(database: Database) -> dg.AssetCheckResult:
    """Check that something moves, if anything should."""
    progress = database.read(query("operations/read_progress")).only
    known = {name: shown(value) for name, value in progress.items() if value is not None}
    return dg.AssetCheckResult(passed=not is_stuck(**progress), metadata=known)


@check(
    on=["coin_lookups"],
    description=f"At most {MOST_FAILED:.0%} of the last {LATEST_LOOKUPS} lookups ended as dead letters.",
)
def lookups_rarely_fail(database: Database) -> dg.AssetCheckResult:
    """Check the share of dead letters."""
    counts = database.read(query("checks/count_recent_failures"), latest=LATEST_LOOKUPS).only
    lookups, failed = counts["lookups"], counts["failed"]
    share = failed / lookups if lookups else 0.0
    return dg.AssetCheckResult(
        passed=share <= MOST_FAILED, metadata={"lookups": lookups, "failed": failed, "failed_share": share}
    )


def is_stuck(*, due_seconds: float | None, resolved_seconds_ago: float | None, is_paused: bool) -> bool:
    """Tell whether the pipeline stands still without a reason.

    Args:
        due_seconds: for how long something has been due; None when nothing is, negative when it will be.
        resolved_seconds_ago: when anything was last resolved; None for never.
        is_paused: a pause explains it.
    """
    limit = STUCK_AFTER.total_seconds()
    is_due = due_seconds is not None and due_seconds > limit
    is_moving = resolved_seconds_ago is not None and resolved_seconds_ago <= limit
    return is_due and not is_moving and not is_paused


def _none_of(violations: Rows) -> dg.AssetCheckResult:
    """Pass when there is none; show the first of them, of which the statement gives a hundred."""
    return dg.AssetCheckResult(
        passed=not violations.rows, metadata={"violations": len(violations.rows), **violations.preview("examples")}
    )


checks = in_one_step("check_coins", [coins_are_well_formed, outcomes_are_true, nothing_is_stuck, lookups_rarely_fail])
