-- An id met a refusal: it loses no attempt, and goes to the back of its turn, behind all that wait or come until then,
-- further each time: 1, 2, 4 … 60 minutes, of which a pause is no part, or it would be the first again.
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

back AS (
    SELECT
        CASE WHEN is_paused(budget, now()) THEN budget.paused_until ELSE now() END
        + make_interval(mins => least(60, 2 ^ least(lookup.refusals, 6))::integer) AS until
    FROM rate_budget AS budget, coin_lookups AS lookup
    WHERE lookup.coin_id = %(coin_id)s
),

refused AS (
    UPDATE coin_lookups
    SET
        refusals = refusals + 1,
        refused_at = CASE WHEN %(is_suspected)s THEN now() END,
        next_attempt_at = back.until,
        enqueued_at = back.until,
        http_status = %(http_status)s,
        error = %(error)s,
        leased_until = CASE WHEN EXISTS (SELECT FROM started) THEN leased_until ELSE now() END
    FROM back
    WHERE coin_id = %(coin_id)s AND leased_by = %(run)s AND leased_until IS NOT NULL
)

SELECT probe FROM started;
