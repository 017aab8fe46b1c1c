-- Count one more failure in a row. The fifth different one opens the breaker, which pauses every call;
-- a failure while it is open, a probe's, renews the pause. Returns whether the breaker is open.
WITH counted AS (
    SELECT
        CASE
            WHEN %(failure)s = ANY(failures_in_a_row) OR cardinality(failures_in_a_row) >= 5
                THEN failures_in_a_row
            ELSE failures_in_a_row || %(failure)s::text
        END AS failures
    FROM rate_budget
    FOR UPDATE
)

UPDATE rate_budget
SET
    failures_in_a_row = failures,
    paused_until = CASE
        WHEN cardinality(failures) >= 5 THEN greatest(paused_until, now() + %(pause)s) ELSE paused_until
    END,
    pause_cause = CASE WHEN cardinality(failures) >= 5 THEN 'outage' ELSE pause_cause END,
    pause_reason = CASE WHEN cardinality(failures) >= 5 THEN %(reason)s ELSE pause_reason END
FROM counted
RETURNING cardinality(failures) >= 5 AS breaker_open;
