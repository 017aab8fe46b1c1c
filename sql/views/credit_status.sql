-- One row: how much of this month's credit is used, and how long the rest will last.
CREATE OR REPLACE VIEW credit_status AS
WITH credit AS (
    SELECT
        budget.account,
        coalesce(this_month.used, 0) AS used,
        this_month.refreshes_planned,
        credit_in_force(
            budget.calls_per_month,
            (
                SELECT latest.credit FROM call_credit AS latest
                WHERE latest.account = budget.account
                ORDER BY latest.month DESC
                LIMIT 1
            )
        ) AS calls_per_month
    FROM rate_budget AS budget
    LEFT JOIN call_credit AS this_month
        ON this_month.account = budget.account AND this_month.month = month_of(now())
),

-- The present pace: of today and yesterday.
pace AS (
    SELECT
        credit.account,
        coalesce(sum(calls.for_lookups + calls.for_refreshes), 0) AS calls,
        extract(
            EPOCH FROM now() - greatest(
                (day_of(now()) - 1)::timestamp AT TIME ZONE 'UTC',
                (SELECT min(counted_since) FROM call_credit WHERE call_credit.account = credit.account)
            )
        ) / 86400 AS days
    FROM credit
    LEFT JOIN calls_by_day AS calls
        ON calls.account = credit.account AND calls.day BETWEEN day_of(now()) - 1 AND day_of(now())
    GROUP BY credit.account
)

SELECT
    credit.account,
    credit.used AS calls_this_month,
    coalesce(credit.calls_per_month, 0) AS calls_per_month,
    CASE WHEN credit.calls_per_month IS NOT NULL THEN greatest(0, credit.calls_per_month - credit.used) END AS calls_left,
    (
        CASE
            WHEN credit.used >= credit.calls_per_month THEN 0
            WHEN credit.calls_per_month IS NOT NULL
                THEN (credit.calls_per_month - credit.used) * pace.days / nullif(pace.calls, 0)
        END
    )::double precision AS credit_lasts_days,
    CASE WHEN credit.calls_per_month IS NOT NULL THEN credit.refreshes_planned END AS refreshes_a_day
FROM credit, pace;
COMMENT ON COLUMN credit_status.calls_per_month IS 'The cap in force; 0 is none.';
COMMENT ON COLUMN credit_status.calls_left IS 'NULL where there is no cap.';
COMMENT ON COLUMN credit_status.refreshes_a_day IS 'Calls, as planned last in this month; NULL where there is no cap.';
COMMENT ON COLUMN credit_status.credit_lasts_days IS 'At the pace of today and yesterday; NULL where there is no cap or no call.';
