-- Challenge query 2: the exchanges with an "x" in their name.
CREATE OR REPLACE VIEW exchanges_with_x AS
SELECT DISTINCT exchange
FROM coins
CROSS JOIN unnest(exchanges) AS exchange
WHERE exchange LIKE '%x%'
ORDER BY exchange;
COMMENT ON COLUMN exchanges_with_x.exchange IS 'CoinGecko''s identifier of the exchange.';
