-- One submission as its client sees it: counts, and every id with its outcome in the order it was sent.
SELECT
    submission.id AS submission,
    submission.received_at,
    submission.duplicates,
    (
        SELECT
            coalesce(
                json_agg(
                    json_build_object(
                        'position', staged.position,
                        'id', staged.coin_id,
                        'outcome', coalesce(staged.outcome, 'pending'),
                        'resolved_at', staged.resolved_at,
                        'task_run', coins.task_run
                    ) ORDER BY staged.position
                ), '[]'
            )
        FROM staged_coins AS staged
        LEFT JOIN coins ON coins.id = staged.coin_id
        WHERE staged.submission_id = submission.id
    ) AS coins,
    (
        SELECT
            coalesce(
                json_agg(
                    json_build_object('position', position, 'value', value, 'reason', reason) ORDER BY position
                ), '[]'
            )
        FROM rejected_coins
        WHERE submission_id = submission.id
    ) AS rejected
FROM submissions AS submission
WHERE submission.id = %(submission)s;
