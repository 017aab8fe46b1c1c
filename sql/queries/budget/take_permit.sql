-- Ask to make one call now: its number, counted, or the seconds after which to ask again.
SELECT
    call_id,
    wait_seconds
FROM take_permit(
    %(account)s,
    %(calls_per_month)s,
    %(purpose)s,
    %(window_seconds)s::double precision,
    %(longest_call_seconds)s::double precision
);
