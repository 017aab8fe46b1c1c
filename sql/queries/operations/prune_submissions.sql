-- Delete a batch of old submissions, with all their rows, whose every id was resolved long ago.
-- A submission with a pending id is never touched.
DELETE FROM submissions
WHERE id IN (
    SELECT id FROM submissions AS submission
    WHERE
        received_at < now() - %(retention)s
        AND NOT EXISTS (
            SELECT FROM staged_coins AS staged
            WHERE
                staged.submission_id = submission.id
                AND (staged.outcome IS NULL OR staged.resolved_at >= now() - %(retention)s)
        )
    ORDER BY id
    LIMIT %(batch)s
);
