-- One row while no process may call CoinGecko, else none: until when, and why.
-- The end of the month's credit by our own count is no pause that is noted: a new month, another key, plan or setting,
-- and what GET /key says end it by themselves.
CREATE OR REPLACE VIEW pause_in_force AS
SELECT
    paused_until,
    pause_cause,
    pause_reason,
    coalesce(looks_again_at, paused_until) AS looks_again_at
FROM (
    SELECT
        paused_until,
        pause_cause,
        pause_reason,
        NULL::timestamptz AS looks_again_at
    FROM rate_budget
    WHERE is_paused(rate_budget, now())
    UNION ALL
    SELECT
        (credit.month + INTERVAL '1 month') AT TIME ZONE 'UTC',
        'month',
        format(
            'the %s calls of %s are used up by our own count; the next month begins on %s (UTC)',
            credit_in_force(budget.calls_per_month, credit.credit),
            to_char(credit.month, 'FMMonth YYYY'),
            to_char(credit.month + INTERVAL '1 month', 'YYYY-MM-DD')
        ),
        CASE WHEN credit.key_due_at > now() + INTERVAL '61 minutes' THEN now() ELSE credit.key_due_at END
    FROM rate_budget AS budget
    JOIN call_credit AS credit ON credit.account = budget.account AND credit.month = month_of(now())
    WHERE credit.used >= credit_in_force(budget.calls_per_month, credit.credit)
) AS pauses
ORDER BY paused_until DESC
LIMIT 1;
COMMENT ON COLUMN pause_in_force.looks_again_at IS 'When a run may start: GET /key is asked hourly, where there is one.';
