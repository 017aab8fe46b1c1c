-- Stop every call of every process for a while. The longer of two pauses holds. An outage, which the next answer ends,
-- never takes the place of another cause that still holds: CoinGecko's wait would end with it.
UPDATE rate_budget
SET
    paused_until = greatest(paused_until, now() + %(pause)s),
    pause_cause = %(cause)s,
    pause_reason = %(reason)s
WHERE
    paused_until IS NULL
    OR paused_until <= now()
    OR pause_cause = 'outage'
    OR (%(cause)s <> 'outage' AND paused_until < now() + %(pause)s);
