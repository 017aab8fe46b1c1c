-- How many distinct ids are pending, and for how many seconds the oldest of them.
SELECT
    count(DISTINCT staged.coin_id) AS pending,
    coalesce(extract(EPOCH FROM now() - min(submission.received_at)), 0)::double precision AS oldest_pending_seconds
FROM staged_coins AS staged
JOIN submissions AS submission ON submission.id = staged.submission_id
WHERE staged.outcome IS NULL;
