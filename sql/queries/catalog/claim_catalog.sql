-- Claim the call for CoinGecko's list of coins: where an id is pending and there is none, or where ten were never compared
-- with one and it is not fresh any more. No row otherwise, nor when it was asked less than an hour ago, which another run
-- may have claimed while this one waited for the row: hence not now().
UPDATE rate_budget
SET catalog_asked_at = clock_timestamp()
WHERE
    (catalog_asked_at IS NULL OR catalog_asked_at NOT BETWEEN clock_timestamp() - INTERVAL '1 hour' AND clock_timestamp())
    AND NOT catalog_is_fresh()
    AND (
        SELECT count(*)
        FROM (SELECT FROM coin_lookups WHERE state = 'pending' AND NOT compared LIMIT 10) AS uncompared
    ) >= CASE WHEN catalog_received_at IS NULL THEN 1 ELSE 10 END
RETURNING catalog_asked_at;
