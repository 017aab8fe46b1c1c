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
        count(*) FILTER (WHERE state = 'failed') AS failed,
        sum(pages) FILTER (WHERE state = 'found') AS pages
    FROM coin_lookups
)

SELECT
    pending.coins AS pending,
    pending.oldest_seconds AS oldest_pending_seconds,
    lookups.found,
    lookups.unknown,
    lookups.failed,
    (SELECT count(*) FROM coins) AS coins,
    (
        SELECT count(*) FROM api_calls
        WHERE called_at > now() - INTERVAL '1 minute' AND called_at <= now() + INTERVAL '1 second'
    ) AS calls_last_minute,
    coalesce(budget_in_force(budget), 0) AS calls_per_minute,
    credit.calls_this_month,
    credit.calls_per_month,
    credit.calls_left,
    credit.credit_lasts_days,
    -- As often as the plan of today allows, and not more often than the setting says.
    (
        CASE
            WHEN credit.calls_per_month = 0 THEN extract(EPOCH FROM budget.refresh_after) / 86400
            WHEN budget.refresh_after IS NOT NULL AND credit.refreshes_a_day > 0
                THEN greatest(
                    extract(EPOCH FROM budget.refresh_after) / 86400,
                    coalesce(lookups.pages, 0)::double precision / credit.refreshes_a_day
                )
        END
    )::double precision AS refresh_every_days,
    pause.paused_until,
    pause.pause_reason
FROM pending, lookups, credit_status AS credit, rate_budget AS budget
LEFT JOIN pause_in_force AS pause ON TRUE;
COMMENT ON COLUMN pipeline_status.pending IS 'Distinct ids that have no outcome.';
COMMENT ON COLUMN pipeline_status.oldest_pending_seconds IS 'For how long the oldest of them has waited; NULL when none is pending.';
COMMENT ON COLUMN pipeline_status.found IS 'Lookups that found a coin.';
COMMENT ON COLUMN pipeline_status.unknown IS 'Lookups that CoinGecko answered 404.';
COMMENT ON COLUMN pipeline_status.failed IS 'Dead letters: lookups whose attempts are used up.';
COMMENT ON COLUMN pipeline_status.coins IS 'Rows of coins.';
COMMENT ON COLUMN pipeline_status.calls_last_minute IS 'Calls to CoinGecko, by all processes together.';
COMMENT ON COLUMN pipeline_status.calls_per_minute IS 'The limit in force; 0 is none.';
COMMENT ON COLUMN pipeline_status.calls_this_month IS 'Calls that count against the month''s credit, as we count.';
COMMENT ON COLUMN pipeline_status.calls_per_month IS 'The cap in force; 0 is none.';
COMMENT ON COLUMN pipeline_status.calls_left IS 'Of this month; NULL where there is no cap.';
COMMENT ON COLUMN pipeline_status.credit_lasts_days IS 'At the pace of today and yesterday; NULL where there is no cap or no call.';
COMMENT ON COLUMN pipeline_status.refresh_every_days IS 'How old answers grow; NULL when none is refreshed.';
COMMENT ON COLUMN pipeline_status.paused_until IS 'No process calls CoinGecko before then; NULL when nothing is paused.';
COMMENT ON COLUMN pipeline_status.pause_reason IS 'Why, while it is paused.';
