-- How long the coins that were added in the last hour took from their POST, in seconds.
SELECT
    percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(EPOCH FROM staged.resolved_at - submission.received_at))
        AS median_seconds,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(EPOCH FROM staged.resolved_at - submission.received_at))
        AS p95_seconds
FROM coins
JOIN staged_coins AS staged ON staged.coin_id = coins.id AND staged.outcome = 'added'
JOIN submissions AS submission ON submission.id = staged.submission_id
WHERE coins.enriched_at > now() - INTERVAL '1 hour';
