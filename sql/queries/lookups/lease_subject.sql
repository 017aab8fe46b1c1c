-- Lease the id that a probe asks for: the next that waits, that CoinGecko lists, and that met no refusal itself.
UPDATE coin_lookups
SET leased_until = now() + %(hold)s, leased_by = %(run)s
WHERE
    coin_id = (
        SELECT coin_id FROM coin_lookups
        WHERE
            state = 'pending'
            AND listed
            AND next_attempt_at <= now()
            AND is_held(leased_until) IS NOT TRUE
            AND next_page = 1
            AND refusals = 0
        ORDER BY enqueued_at, coin_id
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
RETURNING coin_id, attempts, next_page, exchanges_so_far, listed, FALSE AS refresh;
