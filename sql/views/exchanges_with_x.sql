-- Challenge query 2: the exchanges with an "x" in CoinGecko's identifier of them, which need not be in their name.
-- An identifier is there when a coin lists it now: that which was seen with it first, or else any.
CREATE OR REPLACE VIEW exchanges_with_x AS
SELECT name.exchange
FROM exchange_names AS name
WHERE
    name.exchange LIKE '%x%'
    AND (
        EXISTS (SELECT FROM coins WHERE coins.task_run = name.task_run AND name.exchange = ANY(coins.exchanges))
        OR EXISTS (SELECT FROM coins WHERE coins.exchanges @> ARRAY[name.exchange])
    )
ORDER BY name.exchange COLLATE "C";
COMMENT ON COLUMN exchanges_with_x.exchange IS 'CoinGecko''s identifier of the exchange.';
