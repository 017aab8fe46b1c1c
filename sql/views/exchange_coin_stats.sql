-- Challenge query 1: how many distinct coins each exchange lists, and the median task_run of those coins.
CREATE OR REPLACE VIEW exchange_coin_stats AS
SELECT
    exchange,
    count(DISTINCT id) AS distinct_coins,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY task_run) AS median_task_run
FROM coins
CROSS JOIN unnest(exchanges) AS exchange
GROUP BY exchange
ORDER BY distinct_coins DESC, exchange;
COMMENT ON COLUMN exchange_coin_stats.exchange IS 'CoinGecko''s identifier of the exchange.';
COMMENT ON COLUMN exchange_coin_stats.distinct_coins IS 'How many distinct coins it lists.';
COMMENT ON COLUMN exchange_coin_stats.median_task_run IS 'The median task_run of those coins.';
