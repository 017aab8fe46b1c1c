-- The five lookups that failed last, and why.
SELECT coin_id, error, looked_up_at
FROM coin_lookups
WHERE state = 'failed'
ORDER BY looked_up_at DESC
LIMIT 5;
