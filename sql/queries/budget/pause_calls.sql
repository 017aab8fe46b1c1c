-- Stop every call of every process for a while. The longer of two pauses holds, but for an outage, which the next answer
-- ends: it gives way to any other cause, and takes the place of none, since CoinGecko's wait would end with it. That the
-- single call after a pause is under way is no pause, nor is the second after it that is left to what its failure means.
-- A rate limit that no answer came after was not over when it was said to be: then it takes a whole window at least.
WITH wanted AS (
    SELECT
        CASE
            WHEN
                %(cause)s = 'rate limit'
                AND pause_cause = 'rate limit'
                AND NOT (is_paused(rate_budget, now()) AND pause_length > INTERVAL '1 second')
                THEN greatest(%(pause)s::interval, INTERVAL '1 minute')
            ELSE %(pause)s::interval
        END AS pause
    FROM rate_budget
)

UPDATE rate_budget
SET
    paused_until = now() + wanted.pause,
    pause_length = wanted.pause,
    pause_cause = %(cause)s,
    pause_reason = %(reason)s,
    first_call = NULL
FROM wanted
WHERE
    NOT is_paused(rate_budget, now())
    OR first_call IS NOT NULL
    OR pause_length <= INTERVAL '1 second'
    OR (pause_cause = 'outage' AND %(cause)s <> 'outage')
    OR ((pause_cause = 'outage' OR %(cause)s <> 'outage') AND paused_until < now() + wanted.pause);
