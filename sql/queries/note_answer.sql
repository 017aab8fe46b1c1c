-- CoinGecko answers: close the breaker, end the pause that it made, and keep the limit that is advertised.
UPDATE rate_budget
SET
    failures_in_a_row = '{}',
    paused_until = CASE WHEN pause_cause = 'outage' THEN NULL ELSE paused_until END,
    pause_cause = CASE WHEN pause_cause = 'outage' THEN NULL ELSE pause_cause END,
    pause_reason = CASE WHEN pause_cause = 'outage' THEN NULL ELSE pause_reason END,
    advertised_limit = coalesce(%(advertised_limit)s, advertised_limit)
WHERE
    failures_in_a_row <> '{}'
    OR advertised_limit IS DISTINCT FROM coalesce(%(advertised_limit)s, advertised_limit);
