-- A coin of CoinGecko's list that a probe may ask for when no such id waits; another each time. With no list one that
-- everybody knows: that something else is answered, such as /ping, says nothing of coins.
SELECT coin_id FROM (
    SELECT
        coin_id,
        1 AS turn
    FROM coin_catalog
    UNION ALL
    VALUES ('bitcoin', 2), ('ethereum', 2), ('tether', 3)
) AS known
ORDER BY
    EXISTS (
        SELECT FROM coin_lookups AS lookup
        WHERE
            lookup.coin_id = known.coin_id
            AND (lookup.refusals > 0 OR lookup.state = 'failed' OR (lookup.state = 'pending' AND lookup.attempts > 0))
    ),
    turn,
    random()
LIMIT 1;
