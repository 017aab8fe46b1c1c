-- What the sensor decides on: is there anything to do now, how many runs do it already, is all paused?
-- Polled many times a second: nothing is searched during a pause, and each part stops at the first row of a partial
-- index (EXISTS would scan the table once a tenth of it is pending, as it has no order). Refreshes start a run only when
-- one is an hour overdue, so that one run does an hour's worth of them.
SELECT
    coalesce(paused_until <= now(), TRUE) AND (
        coalesce(
            (
                SELECT TRUE FROM coin_lookups
                WHERE
                    state = 'pending'
                    AND next_attempt_at <= now()
                    AND (leased_until IS NULL OR leased_until <= now())
                ORDER BY listed, enqueued_at
                LIMIT 1
            ), FALSE
        )
        OR EXISTS (
            SELECT FROM staged_coins AS staged
            WHERE
                staged.outcome IS NULL
                AND NOT EXISTS (
                    SELECT FROM coin_lookups AS lookup
                    WHERE lookup.coin_id = staged.coin_id AND lookup.state = 'pending'
                )
        )
        OR coalesce(
            (
                SELECT looked_up_at FROM coin_lookups
                WHERE
                    state = 'found'
                    AND next_attempt_at <= now()
                    AND (leased_until IS NULL OR leased_until <= now())
                ORDER BY looked_up_at
                LIMIT 1
            ) <= now() - %(refresh_after)s::interval - INTERVAL '1 hour', FALSE
        )
    ) AS work_due,
    (SELECT count(*) FROM lookup_runs WHERE slot_until > now()) AS runs_in_flight,
    greatest(0, extract(EPOCH FROM paused_until - now()))::double precision AS paused_seconds,
    pause_reason
FROM rate_budget;
