-- The two questions, to paste into psql.

-- 1. For each exchange: how many distinct coins it lists, and the median task_run of those coins.
SELECT
    exchange,
    COUNT(DISTINCT id) AS distinct_coins,
    PERCENTILE_CONT(0.5)
        WITHIN GROUP (ORDER BY task_run) AS median_task_run
FROM coins
CROSS JOIN UNNEST(exchanges) AS exchange
GROUP BY exchange
ORDER BY distinct_coins DESC, exchange COLLATE "C";

-- 2. The exchanges with an "x" in CoinGecko's identifier of them, which need not be in their name.
SELECT DISTINCT exchange COLLATE "C" AS exchange
FROM coins
CROSS JOIN UNNEST(exchanges) AS exchange
WHERE exchange LIKE '%x%'
ORDER BY exchange;
