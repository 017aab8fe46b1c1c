-- Make the configured calls a minute known to every process; 0 means no limit.
-- What was advertised under another setting, and so perhaps to another key, says nothing any more.
UPDATE rate_budget
SET calls_per_minute = %(calls_per_minute)s, advertised_limit = NULL
WHERE calls_per_minute <> %(calls_per_minute)s;
