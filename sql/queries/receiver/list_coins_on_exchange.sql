-- A page of the coins that an exchange lists, in the order they were looked up.
SELECT id, task_run, exchanges, complete, enriched_at, updated_at
FROM coins
WHERE exchanges @> ARRAY[%(exchange)s::text] AND task_run > %(after)s
ORDER BY task_run
LIMIT %(limit)s;
