-- Keep CoinGecko's list of coins, and let it decide on the order of the lookups that are pending.
WITH answer AS (
    SELECT DISTINCT coin_id FROM unnest(%(coin_ids)s::text[]) AS coin_id
),

removed AS (
    DELETE FROM coin_catalog
    WHERE NOT EXISTS (SELECT FROM answer WHERE answer.coin_id = coin_catalog.coin_id)
),

added AS (
    INSERT INTO coin_catalog (coin_id)
    SELECT coin_id FROM answer
    ORDER BY coin_id
    ON CONFLICT (coin_id) DO NOTHING
),

received AS (
    UPDATE rate_budget SET catalog_received_at = now()
)

UPDATE coin_lookups AS lookup
SET
    listed = EXISTS (SELECT FROM answer WHERE answer.coin_id = lookup.coin_id),
    compared = TRUE
WHERE
    lookup.state = 'pending'
    AND (
        NOT lookup.compared
        OR lookup.listed <> EXISTS (SELECT FROM answer WHERE answer.coin_id = lookup.coin_id)
    );
