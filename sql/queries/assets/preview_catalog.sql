-- The five ids that CoinGecko has listed for the shortest time.
SELECT coin_id, first_seen_at
FROM coin_catalog
ORDER BY first_seen_at DESC, coin_id COLLATE "C"
LIMIT 5;
