-- How many rows the receiver has landed, and how many ids among them are pending.
SELECT
    (SELECT count(*) FROM submissions) AS submissions,
    (SELECT count(*) FROM staged_coins) AS staged_coins,
    pending,
    coalesce(oldest_pending_seconds, 0) AS oldest_pending_seconds
FROM pipeline_status;
