-- A call has ended: CoinGecko's window cannot hold it for longer than a window from now. Where there was an answer, the
-- breaker closes, the pause that it made ends, and the limit that was advertised holds. Nobody waits for the disk.
WITH relaxed AS (SELECT set_config('synchronous_commit', 'off', TRUE)),

answered AS (
    UPDATE rate_budget
    SET
        failures_in_a_row = '{}',
        paused_until = CASE WHEN pause_cause = 'outage' THEN NULL ELSE paused_until END,
        pause_cause = CASE WHEN pause_cause = 'outage' THEN NULL ELSE pause_cause END,
        pause_reason = CASE WHEN pause_cause = 'outage' THEN NULL ELSE pause_reason END,
        advertised_limit = coalesce(%(advertised_limit)s, advertised_limit)
    WHERE
        %(is_answered)s
        AND (
            failures_in_a_row <> '{}'
            OR pause_cause = 'outage'
            OR advertised_limit IS DISTINCT FROM coalesce(%(advertised_limit)s, advertised_limit)
        )
)

UPDATE api_calls
SET occupies_until = clock_timestamp() + make_interval(secs => %(window_seconds)s)
FROM relaxed
WHERE id = %(call_id)s;
