-- Coins that break a promise of their table: an id that is empty, or exchanges that are not sorted, distinct and named.
SELECT task_run, id, exchanges
FROM coins
WHERE
    id = ''
    OR exchanges IS DISTINCT FROM ARRAY(
        SELECT DISTINCT exchange COLLATE "C" AS exchange
        FROM unnest(exchanges) AS exchange
        WHERE exchange <> ''
        ORDER BY exchange
    )
ORDER BY task_run
LIMIT 100;
