-- An id met a refusal: it loses no attempt, and goes to the back of its turn, further each time: 1, 2, 4 … 60 minutes.
-- One that was refused without an error code is suspected until a probe has told. It waits for the probe under way; else
-- this starts one, returns it, and keeps the lease, as the probe's call takes the place of its own.
WITH started AS (
    UPDATE rate_budget
    SET probe = %(probe)s, probe_until = clock_timestamp() + %(probe_hold)s
    WHERE
        %(is_suspected)s
        AND coalesce(probe_until NOT BETWEEN clock_timestamp() AND clock_timestamp() + %(probe_hold)s, TRUE)
    RETURNING probe
),

-- What a probe that was lost should have judged is judged by none: it may have been everybody's refusal then.
cleared AS (
    UPDATE coin_lookups
    SET refused_at = NULL
    WHERE refused_at IS NOT NULL AND coin_id <> %(coin_id)s AND EXISTS (SELECT FROM started)
),

refused AS (
    UPDATE coin_lookups
    SET
        refusals = refusals + 1,
        refused_at = CASE WHEN %(is_suspected)s THEN now() END,
        next_attempt_at = now() + make_interval(mins => least(60, 2 ^ least(refusals, 6))::integer),
        http_status = %(http_status)s,
        error = %(error)s,
        leased_until = CASE WHEN EXISTS (SELECT FROM started) THEN leased_until ELSE now() END
    WHERE coin_id = %(coin_id)s AND leased_by = %(run)s AND leased_until IS NOT NULL
)

SELECT probe FROM started;
