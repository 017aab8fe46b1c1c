-- Claim the hourly call for CoinGecko's list of coins; no row when it was asked less than an hour ago.
UPDATE rate_budget
SET catalog_asked_at = now()
WHERE catalog_asked_at IS NULL OR catalog_asked_at <= now() - INTERVAL '1 hour'
RETURNING catalog_asked_at;
