-- Resolve every pending row whose answer is known already, whichever run or POST made it known.
WITH known AS (
    SELECT
        staged.submission_id,
        staged.coin_id,
        CASE WHEN coins.id IS NOT NULL THEN 'already_known' ELSE lookup.state END AS outcome
    FROM staged_coins AS staged
    LEFT JOIN coins ON coins.id = staged.coin_id
    LEFT JOIN coin_lookups AS lookup
        ON
            lookup.coin_id = staged.coin_id
            AND (
                (lookup.state = 'unknown' AND lookup.looked_up_at > now() - %(unknown_ttl)s)
                OR (lookup.state = 'failed' AND lookup.looked_up_at > now() - %(failed_ttl)s)
            )
    WHERE staged.outcome IS NULL AND (coins.id IS NOT NULL OR lookup.coin_id IS NOT NULL)
    ORDER BY staged.coin_id, staged.submission_id
    FOR UPDATE OF staged SKIP LOCKED
)

UPDATE staged_coins AS staged
SET outcome = known.outcome, resolved_at = now()
FROM known
WHERE staged.submission_id = known.submission_id AND staged.coin_id = known.coin_id;
