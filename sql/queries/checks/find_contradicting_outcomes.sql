-- Outcomes that the table of coins contradicts: a coin that was said to be there and is not, or one that
-- was said to be missing when it was there already.
SELECT staged.submission_id, staged.coin_id, staged.outcome, staged.resolved_at, coins.enriched_at
FROM staged_coins AS staged
LEFT JOIN coins ON coins.id = staged.coin_id
WHERE
    (staged.outcome IN ('added', 'already_known') AND coins.id IS NULL)
    OR (staged.outcome IN ('unknown', 'failed') AND coins.enriched_at < staged.resolved_at)
ORDER BY staged.resolved_at
LIMIT 100;
