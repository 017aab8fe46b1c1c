-- The five newest submissions, and how many of their ids were staged and how many were not.
SELECT
    id,
    received_at,
    client,
    content_type,
    (SELECT count(*) FROM staged_coins AS staged WHERE staged.submission_id = submission.id) AS staged,
    (SELECT count(*) FROM rejected_coins AS rejected WHERE rejected.submission_id = submission.id) AS rejected
FROM submissions AS submission
ORDER BY id DESC
LIMIT 5;
