-- Ask again for pending ids whose unknown or failed lookup has outlived its time to live.
WITH expired AS (
    SELECT coin_id FROM coin_lookups AS lookup
    WHERE
        (
            (state = 'unknown' AND looked_up_at <= now() - %(unknown_ttl)s)
            OR (state = 'failed' AND looked_up_at <= now() - %(failed_ttl)s)
            -- Its coin was deleted by hand, or lost in a partial restore.
            OR (state = 'found' AND NOT EXISTS (SELECT FROM coins WHERE coins.id = lookup.coin_id))
        )
        AND EXISTS (
            SELECT FROM staged_coins AS staged
            WHERE staged.coin_id = lookup.coin_id AND staged.outcome IS NULL
        )
    FOR UPDATE SKIP LOCKED
)

UPDATE coin_lookups AS lookup
SET
    state = 'pending',
    attempts = 0,
    refusals = 0,
    next_attempt_at = now(),
    enqueued_at = now(),
    listed = EXISTS (SELECT FROM coin_catalog WHERE coin_catalog.coin_id = lookup.coin_id),
    compared = catalog_is_fresh()
FROM expired
WHERE lookup.coin_id = expired.coin_id;
