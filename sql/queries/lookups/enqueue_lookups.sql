-- Give every pending id that was never wanted before a lookup. Sorted, so that two runs cannot deadlock.
INSERT INTO coin_lookups (coin_id, enqueued_at, listed, compared)
SELECT
    staged.coin_id,
    min(submission.received_at),
    EXISTS (SELECT FROM coin_catalog WHERE coin_catalog.coin_id = staged.coin_id),
    catalog_is_fresh()
FROM staged_coins AS staged
JOIN submissions AS submission ON submission.id = staged.submission_id
WHERE
    staged.outcome IS NULL
    AND NOT EXISTS (SELECT FROM coin_lookups AS lookup WHERE lookup.coin_id = staged.coin_id)
GROUP BY staged.coin_id
ORDER BY staged.coin_id
ON CONFLICT (coin_id) DO NOTHING;
