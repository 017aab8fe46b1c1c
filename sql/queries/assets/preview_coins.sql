-- The five newest coins.
SELECT task_run, id, cardinality(exchanges) AS exchanges, enriched_at
FROM coins
ORDER BY task_run DESC
LIMIT 5;
