-- The one transaction of an id that ends unknown or failed: its lookup and its outcomes.
WITH lookup AS (
    UPDATE coin_lookups
    SET
        state = %(state)s,
        attempts = attempts + 1,
        http_status = %(http_status)s,
        error = %(error)s,
        looked_up_at = now(),
        leased_until = NULL,
        next_page = 1,
        exchanges_so_far = '{}',
        refusals = 0,
        refused_at = NULL
    WHERE coin_id = %(coin_id)s AND leased_by = %(run)s AND leased_until IS NOT NULL
    RETURNING coin_id
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
    SET resolved_at = now(), outcome = %(state)s
    FROM pending
    WHERE staged.submission_id = pending.submission_id AND staged.coin_id = pending.coin_id
)

SELECT coin_id FROM lookup;
