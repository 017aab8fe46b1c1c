-- The five ids that have waited longest, and what is known of their lookups.
SELECT staged.coin_id, submission.received_at, lookup.attempts, lookup.error
FROM staged_coins AS staged
JOIN submissions AS submission ON submission.id = staged.submission_id
LEFT JOIN coin_lookups AS lookup ON lookup.coin_id = staged.coin_id
WHERE staged.outcome IS NULL
ORDER BY submission.received_at, staged.coin_id COLLATE "C"
LIMIT 5;
