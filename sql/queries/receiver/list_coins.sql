-- A page of the final table, in the order the coins were looked up.
SELECT id, task_run, exchanges, complete, enriched_at, updated_at
FROM coins
WHERE task_run > %(after)s
ORDER BY task_run
LIMIT %(limit)s;
