-- The five lookups that CoinGecko answered last.
SELECT coin_id, state, http_status, looked_up_at
FROM coin_lookups
WHERE looked_up_at IS NOT NULL
ORDER BY looked_up_at DESC
LIMIT 5;
