-- One coin of the final table.
SELECT id, task_run, exchanges, complete, enriched_at, updated_at
FROM coins
WHERE id = %(coin_id)s;
