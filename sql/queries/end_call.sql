-- A call has ended: CoinGecko's window cannot hold it for longer than a window from now. Nobody waits for the disk.
WITH relaxed AS (SELECT set_config('synchronous_commit', 'off', TRUE))

UPDATE api_calls
SET occupies_until = clock_timestamp() + make_interval(secs => %(window_seconds)s)
FROM relaxed
WHERE id = %(call_id)s;
