-- The five lookups that failed last, and why.
SELECT coin_id, attempts, http_status, error, looked_up_at
FROM coin_lookups
WHERE state = 'failed'
ORDER BY looked_up_at DESC
LIMIT 5;
