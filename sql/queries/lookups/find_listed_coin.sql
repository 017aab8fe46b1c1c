-- A coin of CoinGecko's list that a probe may ask for when no such id waits; another each time.
SELECT coin_id FROM coin_catalog
WHERE
    NOT EXISTS (
        SELECT FROM coin_lookups AS lookup
        WHERE lookup.coin_id = coin_catalog.coin_id AND (lookup.refusals > 0 OR lookup.state = 'failed')
    )
ORDER BY random()
LIMIT 1;
