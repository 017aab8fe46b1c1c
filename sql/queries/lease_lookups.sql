-- Lease due lookups, oldest first, as many as keep all processes together within the concurrency.
-- An interrupted lookup goes on at its next page, unless it has waited so long that pages have shifted.
WITH due AS (
    SELECT coin_id FROM coin_lookups
    WHERE
        state = 'pending'
        AND next_attempt_at <= now()
        AND (leased_until IS NULL OR leased_until <= now())
    ORDER BY enqueued_at, coin_id
    LIMIT least(
        %(wanted)s,
        greatest(0, %(concurrency)s - (SELECT count(*) FROM coin_lookups WHERE leased_until > now()))
    )
    FOR UPDATE SKIP LOCKED
)

UPDATE coin_lookups AS lookup
SET
    leased_until = now() + %(lease)s,
    leased_by = %(run)s,
    next_page = CASE WHEN leased_until > now() - INTERVAL '10 minutes' THEN next_page ELSE 1 END,
    exchanges_so_far
        = CASE WHEN leased_until > now() - INTERVAL '10 minutes' THEN exchanges_so_far ELSE '{}' END
FROM due
WHERE lookup.coin_id = due.coin_id
RETURNING lookup.coin_id, lookup.attempts, lookup.next_page, lookup.exchanges_so_far;
