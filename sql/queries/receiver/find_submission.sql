-- The submission that a client made with an idempotency key, with what its first answer said.
SELECT
    submission.id AS submission,
    submission.body_sha256,
    (SELECT count(*) FROM staged_coins WHERE submission_id = submission.id) AS accepted,
    submission.duplicates,
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
WHERE submission.client = %(client)s AND submission.idempotency_key = %(idempotency_key)s;
