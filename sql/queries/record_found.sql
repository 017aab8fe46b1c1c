-- The one transaction of a coin that was found: its lookup, its row in coins and its outcomes.
-- NOT EXISTS spares identity values (each conflict would burn a task_run); the conflict clause is a guard only.
WITH lookup AS (
    UPDATE coin_lookups
    SET
        state = 'found',
        attempts = attempts + 1,
        http_status = 200,
        error = NULL,
        looked_up_at = now(),
        leased_until = NULL,
        next_page = 1,
        exchanges_so_far = '{}'
    WHERE coin_id = %(coin_id)s AND leased_by = %(run)s AND leased_until IS NOT NULL
    RETURNING coin_id
),

added AS (
    INSERT INTO coins (id, exchanges, complete)
    SELECT coin_id, %(exchanges)s, %(complete)s
    FROM lookup
    WHERE NOT EXISTS (SELECT FROM coins WHERE coins.id = lookup.coin_id)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
),

pending AS (
    SELECT staged.submission_id, staged.coin_id
    FROM staged_coins AS staged
    JOIN lookup ON lookup.coin_id = staged.coin_id
    WHERE staged.outcome IS NULL
    ORDER BY staged.submission_id
    FOR UPDATE OF staged
),

resolved AS (
    UPDATE staged_coins AS staged
    SET
        resolved_at = now(),
        outcome = CASE
            WHEN
                EXISTS (SELECT FROM added)
                AND staged.submission_id = (SELECT min(submission_id) FROM pending)
                THEN 'added'
            ELSE 'already_known'
        END
    FROM pending
    WHERE staged.submission_id = pending.submission_id AND staged.coin_id = pending.coin_id
)

SELECT coin_id FROM lookup;
