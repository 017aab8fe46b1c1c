-- Count one more failure in a row, up to the five that open the breaker, and return how many there are. An id that fails
-- again counts again, or an outage with few ids waiting would never be one.
UPDATE rate_budget
SET failures_in_a_row = (failures_in_a_row || %(failure)s::text)[:5]
RETURNING cardinality(failures_in_a_row);
