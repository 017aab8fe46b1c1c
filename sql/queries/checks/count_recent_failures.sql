-- How many of the last lookups that ended were dead letters.
SELECT
    count(*) AS lookups,
    count(*) FILTER (WHERE state = 'failed') AS failed
FROM (
    SELECT state FROM coin_lookups
    WHERE looked_up_at IS NOT NULL AND state <> 'pending'
    ORDER BY looked_up_at DESC
    LIMIT %(latest)s
) AS latest;
