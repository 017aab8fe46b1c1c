-- Whether anything moves: for how long something has been due, how long ago anything was resolved, and
-- whether a pause explains it.
SELECT
    extract(
        EPOCH FROM now() - least(
            (SELECT min(next_attempt_at) FROM coin_lookups WHERE state = 'pending'),
            (
                SELECT min(submission.received_at)
                FROM staged_coins AS staged
                JOIN submissions AS submission ON submission.id = staged.submission_id
                WHERE
                    staged.outcome IS NULL
                    AND NOT EXISTS (
                        SELECT FROM coin_lookups AS lookup
                        WHERE lookup.coin_id = staged.coin_id AND lookup.state = 'pending'
                    )
            )
        )
    )::double precision AS due_seconds,
    extract(EPOCH FROM now() - (SELECT max(resolved_at) FROM staged_coins))::double precision
        AS resolved_seconds_ago,
    EXISTS (SELECT FROM pause_in_force) AS is_paused;
