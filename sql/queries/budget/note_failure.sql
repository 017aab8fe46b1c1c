-- Count one more failure in a row; five different ones open the breaker. Returns whether it is open.
UPDATE rate_budget
SET
    failures_in_a_row = CASE
        WHEN %(failure)s = ANY(failures_in_a_row) OR cardinality(failures_in_a_row) >= 5 THEN failures_in_a_row
        ELSE failures_in_a_row || %(failure)s::text
    END
RETURNING cardinality(failures_in_a_row) >= 5 AS breaker_open;
