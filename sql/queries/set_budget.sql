-- Make the configured calls a minute known to every process; 0 means no limit.
UPDATE rate_budget SET calls_per_minute = %(calls_per_minute)s WHERE calls_per_minute <> %(calls_per_minute)s;
