-- Stop every call of every process for a while. The longer of two pauses holds, but for an outage, which the next answer
-- ends: it gives way to any other cause, and takes the place of none, since CoinGecko's wait would end with it. That the
-- single call after a pause is under way is no pause.
UPDATE rate_budget
SET
    paused_until = now() + %(pause)s,
    pause_length = %(pause)s,
    pause_cause = %(cause)s,
    pause_reason = %(reason)s,
    first_call = NULL
WHERE
    NOT is_paused(rate_budget, now())
    OR first_call IS NOT NULL
    OR (pause_cause = 'outage' AND %(cause)s <> 'outage')
    OR ((pause_cause = 'outage' OR %(cause)s <> 'outage') AND paused_until < now() + %(pause)s);
