-- A call has ended: CoinGecko's window cannot hold it for longer than a window from now.
UPDATE api_calls
SET occupies_until = clock_timestamp() + make_interval(secs => %(window_seconds)s)
WHERE id = %(call_id)s;
