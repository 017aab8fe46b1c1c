-- A probe has told: the ids that were refused meanwhile are suspected no more. Where it was answered they are to blame,
-- and are leased and returned, to be charged; else they wait for their turn. A probe that was given up judges nobody.
WITH ended AS (
    UPDATE rate_budget
    SET probe = NULL, probe_until = NULL
    WHERE probe = %(probe)s
    RETURNING probe
),

judged AS (
    UPDATE coin_lookups
    SET
        refused_at = NULL,
        leased_by = %(run)s,
        leased_until = CASE WHEN %(is_answered)s THEN now() + %(hold)s ELSE now() END
    WHERE
        refused_at IS NOT NULL
        AND (is_held(leased_until) IS NOT TRUE OR leased_by = %(run)s)
        AND EXISTS (SELECT FROM ended)
    RETURNING coin_id, attempts, next_page, exchanges_so_far, listed, state = 'found' AS refresh, http_status
)

SELECT * FROM judged
WHERE %(is_answered)s
ORDER BY coin_id;
