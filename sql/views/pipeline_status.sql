-- One row: how the pipeline is doing.
CREATE OR REPLACE VIEW pipeline_status AS
WITH pending AS (
    SELECT
        count(DISTINCT staged.coin_id) AS coins,
        extract(EPOCH FROM now() - min(submission.received_at))::double precision AS oldest_seconds
    FROM staged_coins AS staged
    JOIN submissions AS submission ON submission.id = staged.submission_id
    WHERE staged.outcome IS NULL
),

lookups AS (
    SELECT
        count(*) FILTER (WHERE state = 'found') AS found,
        count(*) FILTER (WHERE state = 'unknown') AS unknown,
        count(*) FILTER (WHERE state = 'failed') AS failed
    FROM coin_lookups
)

SELECT
    pending.coins AS pending,
    pending.oldest_seconds AS oldest_pending_seconds,
    lookups.found,
    lookups.unknown,
    lookups.failed,
    (SELECT count(*) FROM coins) AS coins,
    (SELECT count(*) FROM api_calls WHERE called_at > now() - INTERVAL '1 minute') AS calls_last_minute,
    coalesce(budget_in_force(budget), 0) AS calls_per_minute,
    CASE WHEN budget.paused_until > now() THEN budget.paused_until END AS paused_until,
    CASE WHEN budget.paused_until > now() THEN budget.pause_reason END AS pause_reason
FROM pending, lookups, rate_budget AS budget;
COMMENT ON COLUMN pipeline_status.pending IS 'Distinct ids that have no outcome.';
COMMENT ON COLUMN pipeline_status.calls_per_minute IS 'The limit in force; 0 is none.';
COMMENT ON COLUMN pipeline_status.paused_until IS 'No process calls CoinGecko before then; NULL when nothing is paused.';
