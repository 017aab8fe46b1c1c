"""The columns of each relation that is an asset, as the database describes them; a test holds them against it."""

import dagster as dg


def column(name: str, kind: str, description: str, *, required: bool = False) -> dg.TableColumn:
    """Describe a column.

    Args:
        name: as in the database.
        kind: its type, as the migrations spell it.
        description: its comment in the database.
        required: it is never NULL.
    """
    return dg.TableColumn(name, kind, description, dg.TableColumnConstraints(nullable=not required))


COLUMNS = {
    "submissions": [
        column("id", "bigint", "The number in the receiver's answer.", required=True),
        column("received_at", "timestamptz", "When the POST was accepted.", required=True),
        column("client", "text", "The name of the API key, else the address.", required=True),
        column("content_type", "text", "As sent: JSON or CSV.", required=True),
        column("idempotency_key", "text", "As sent, if it was."),
        column("body_sha256", "bytea", "Tells a repeated POST from another with the same key.", required=True),
        column("duplicates", "integer", "Ids that this POST held more than once, beyond their first.", required=True),
    ],
    "staged_coins": [
        column("submission_id", "bigint", "The POST that it came with.", required=True),
        column("coin_id", "text", "As sent, trimmed.", required=True),
        column("position", "integer", "Its place among the ids of the POST, from 0.", required=True),
        column("outcome", "text", "NULL while pending, then added, already_known, unknown or failed."),
        column("resolved_at", "timestamptz", "When it got its outcome, which was true then."),
    ],
    "coin_catalog": [
        column("coin_id", "text", "CoinGecko's id of the coin.", required=True),
        column("first_seen_at", "timestamptz", "When it was first on the list.", required=True),
    ],
    "coin_lookups": [
        column("coin_id", "text", "The id as it was staged.", required=True),
        column("state", "text", "pending, then found, unknown (a 404) or failed (a dead letter).", required=True),
        column("enqueued_at", "timestamptz", "Since when it is wanted: the older come first.", required=True),
        column(
            "attempts", "integer", "Lookups that ended in an answer or a timeout since the last requeue.", required=True
        ),
        column("next_attempt_at", "timestamptz", "Before then it is not asked for again.", required=True),
        column("leased_until", "timestamptz", "A run is at work on it until then, unless it renews the lease."),
        column("leased_by", "text", "The lookup run that holds, or last held, the lease."),
        column("next_page", "integer", "Where a lookup that was interrupted goes on.", required=True),
        column("exchanges_so_far", "text[]", "Exchanges on the pages before next_page.", required=True),
        column(
            "http_status", "integer", "The status that CoinGecko answered last; NULL where there was no whole answer."
        ),
        column("error", "text", "What was wrong with the last answer."),
        column("looked_up_at", "timestamptz", "When it was last found, unknown or failed."),
        column("listed", "boolean", "While pending: the id is in coin_catalog.", required=True),
        column(
            "refusals",
            "integer",
            "Refusals that it met since its last answer: each sends it further back.",
            required=True,
        ),
        column(
            "refused_at",
            "timestamptz",
            "It was refused without an error code then, and no probe has told yet whose refusal that was.",
        ),
        column("compared", "boolean", "While pending: listed is by a list that was fresh.", required=True),
        column("pages", "integer", "Calls that the last answer took.", required=True),
    ],
    "coins": [
        column("task_run", "bigint", "The order in which coins were looked up.", required=True),
        column("id", "text", "CoinGecko's id of the coin.", required=True),
        column("exchanges", "text[]", "CoinGecko exchange identifiers, sorted and distinct.", required=True),
        column("complete", "boolean", "False when the page cap cut the list of tickers.", required=True),
        column("enriched_at", "timestamptz", "When the coin was first looked up.", required=True),
        column("updated_at", "timestamptz", "When its exchanges last changed.", required=True),
    ],
    "exchange_coin_stats": [
        column("exchange", "text", "CoinGecko's identifier of the exchange."),
        column("distinct_coins", "bigint", "How many distinct coins it lists."),
        column("median_task_run", "double precision", "The median task_run of those coins."),
    ],
    "exchanges_with_x": [
        column("exchange", "text", "CoinGecko's identifier of the exchange."),
    ],
    "pipeline_status": [
        column("pending", "bigint", "Distinct ids that have no outcome."),
        column(
            "oldest_pending_seconds",
            "double precision",
            "For how long the oldest of them has waited; NULL when none is pending.",
        ),
        column("found", "bigint", "Lookups that found a coin."),
        column("unknown", "bigint", "Lookups that CoinGecko answered 404."),
        column("failed", "bigint", "Dead letters: lookups whose attempts are used up."),
        column("coins", "bigint", "Rows of coins."),
        column("calls_last_minute", "bigint", "Calls to CoinGecko, by all processes together."),
        column("calls_per_minute", "integer", "The limit in force; 0 is none."),
        column("calls_this_month", "integer", "Calls that count against the month's credit, as we count."),
        column("calls_per_month", "integer", "The cap in force; 0 is none."),
        column("calls_left", "integer", "Of this month; NULL where there is no cap."),
        column(
            "credit_lasts_days",
            "double precision",
            "At the pace of today and yesterday; NULL where there is no cap or no call.",
        ),
        column("refresh_every_days", "double precision", "How old answers grow; NULL when none is refreshed."),
        column("paused_until", "timestamptz", "No process calls CoinGecko before then; NULL when nothing is paused."),
        column("pause_reason", "text", "Why, while it is paused."),
    ],
}
