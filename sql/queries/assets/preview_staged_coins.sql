-- Ids of the newest submissions, and what became of them.
SELECT submission_id, coin_id, position, outcome, resolved_at
FROM staged_coins
ORDER BY submission_id DESC, position
LIMIT 5;
