-- What the plan of refreshes is made of: what was left of the month's credit when the day began (UTC), and what new ids
-- have cost in the last seven days, or in as many as are known.
SELECT
    credit_status.calls_per_month AS credit,
    greatest(
        0,
        credit_status.calls_per_month - credit_status.calls_this_month
        + coalesce(
            (
                SELECT for_lookups + for_refreshes FROM calls_by_day
                WHERE calls_by_day.account = credit_status.account AND day = day_of(now())
            ), 0
        )
    )::integer AS left_at_midnight,
    coalesce(
        (
            SELECT sum(for_lookups) FROM calls_by_day
            WHERE calls_by_day.account = credit_status.account AND day BETWEEN day_of(now()) - 6 AND day_of(now())
        ), 0
    )::integer AS lookup_calls,
    (
        extract(
            EPOCH FROM now() - greatest(
                (day_of(now()) - 6)::timestamp AT TIME ZONE 'UTC',
                coalesce(
                    (SELECT min(counted_since) FROM call_credit WHERE call_credit.account = credit_status.account), now()
                )
            )
        ) / 86400
    )::double precision AS days_known,
    (month_of(now()) + INTERVAL '1 month')::date - day_of(now()) AS days_left,
    (month_of(now()) + INTERVAL '1 month')::date - month_of(now()) AS days_in_month
-- A new month's row is made by whoever comes first.
FROM credit_status, (SELECT (credit_of(account, now())).month FROM rate_budget) AS present
WHERE credit_status.calls_per_month > 0;
