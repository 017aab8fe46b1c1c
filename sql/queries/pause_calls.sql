-- Stop every call of every process for a while; a longer pause that is on already stays.
UPDATE rate_budget
SET paused_until = now() + %(pause)s, pause_cause = %(cause)s, pause_reason = %(reason)s
WHERE paused_until IS NULL OR paused_until < now() + %(pause)s;
