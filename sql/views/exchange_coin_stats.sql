-- Challenge query 1: how many distinct coins each exchange lists, and the median task_run of those coins.
-- The numbers are gathered by exchange first and then sorted within each: the query as it is written in challenge.sql
-- sorts every listing by two texts. A coin's task_run is its own, so that to count those is to count ids.
CREATE OR REPLACE VIEW exchange_coin_stats AS
SELECT
    listing.exchange,
    stats.distinct_coins,
    stats.median_task_run
FROM (
    SELECT exchange, array_agg(coins.task_run) AS task_runs
    FROM coins
    CROSS JOIN unnest(coins.exchanges) AS exchange
    GROUP BY exchange
) AS listing
CROSS JOIN LATERAL (
    SELECT
        count(DISTINCT task_run) AS distinct_coins,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY task_run) AS median_task_run
    FROM unnest(listing.task_runs) AS task_run
) AS stats
ORDER BY stats.distinct_coins DESC, listing.exchange COLLATE "C";
COMMENT ON COLUMN exchange_coin_stats.exchange IS 'CoinGecko''s identifier of the exchange.';
COMMENT ON COLUMN exchange_coin_stats.distinct_coins IS 'How many distinct coins it lists.';
COMMENT ON COLUMN exchange_coin_stats.median_task_run IS 'The median task_run of those coins.';
