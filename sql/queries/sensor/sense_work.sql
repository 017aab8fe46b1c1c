-- What the sensor decides on: is there anything to do now, how many runs do it already, is all paused?
-- Polled many times a second: nothing is searched during a pause, and each part stops at the first row of a partial
-- index (EXISTS would scan the table once a tenth of it is pending, as it has no order). Refreshes start a run only when
-- one is an hour overdue, so that one run does an hour's worth of them, and only as many as the credit allows today.
WITH pause AS (
    SELECT
        pause_reason,
        extract(EPOCH FROM looks_again_at - now())::double precision AS seconds
    FROM pause_in_force
    WHERE looks_again_at > now()
)

SELECT
    NOT EXISTS (SELECT FROM pause) AND (
        coalesce(
            (
                SELECT TRUE FROM coin_lookups
                WHERE
                    state = 'pending'
                    AND next_attempt_at <= now()
                    AND is_held(leased_until) IS NOT TRUE
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
                SELECT lookup.looked_up_at FROM coin_lookups AS lookup, refresh_allowance AS allowance
                WHERE
                    lookup.state = 'found'
                    AND lookup.next_attempt_at <= now()
                    AND is_held(lookup.leased_until) IS NOT TRUE
                    AND (
                        NOT allowance.is_planned
                        OR allowance.calls IS NULL
                        OR allowance.is_untouched
                        OR lookup.pages <= allowance.calls
                    )
                ORDER BY lookup.looked_up_at
                LIMIT 1
            ) <= now() - %(refresh_after)s::interval - INTERVAL '1 hour', FALSE
        )
    ) AS work_due,
    (SELECT count(*) FROM lookup_runs WHERE is_held(slot_until)) AS runs_in_flight,
    coalesce((SELECT seconds FROM pause), 0) AS paused_seconds,
    (SELECT pause_reason FROM pause) AS pause_reason;
