-- Stop every call of every process for a while. The longer of two pauses holds, but for an outage, which the next answer
-- ends: it gives way to any other cause, and takes the place of none, since CoinGecko's wait would end with it.
UPDATE rate_budget
SET
    paused_until = now() + %(pause)s,
    pause_cause = %(cause)s,
    pause_reason = %(reason)s
WHERE
    paused_until IS NULL
    OR paused_until <= now()
    OR (pause_cause = 'outage' AND %(cause)s <> 'outage')
    OR ((pause_cause = 'outage' OR %(cause)s <> 'outage') AND paused_until < now() + %(pause)s);
