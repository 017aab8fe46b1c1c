-- Make answers that are known look as old as can be, so that the next drain asks for them again.
-- Without ids, all of them. A coin keeps its row, its outcomes and its task_run meanwhile.
UPDATE coin_lookups
SET looked_up_at = to_timestamp(0), next_attempt_at = now()
WHERE state = 'found' AND (%(coin_ids)s::text[] IS NULL OR coin_id = ANY(%(coin_ids)s))
RETURNING coin_id;
