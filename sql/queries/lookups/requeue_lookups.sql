-- Bring dead letters back: the lookups become pending with no attempts, and so do their staged rows.
-- Without ids, all lookups in that state.
WITH requeued AS (
    UPDATE coin_lookups
    SET
        state = 'pending',
        attempts = 0,
        refusals = 0,
        next_attempt_at = now(),
        enqueued_at = now(),
        listed = EXISTS (SELECT FROM coin_catalog WHERE coin_catalog.coin_id = coin_lookups.coin_id),
        compared = catalog_is_fresh()
    WHERE state = %(state)s AND (%(coin_ids)s::text[] IS NULL OR coin_id = ANY(%(coin_ids)s))
    RETURNING coin_id
),

pending AS (
    UPDATE staged_coins AS staged
    SET outcome = NULL, resolved_at = NULL
    FROM requeued
    WHERE staged.coin_id = requeued.coin_id AND staged.outcome = %(state)s
)

SELECT coin_id FROM requeued ORDER BY coin_id COLLATE "C";
