-- Ask to make one call now: its number, counted, or the seconds after which to ask again.
SELECT
    call_id,
    wait_seconds
FROM take_permit(%(window_seconds)s::double precision, %(probe_every_seconds)s::double precision);
