-- Take a slot for a lookup run, if others leave one free; it keeps the one that it has.
WITH expired AS (
    DELETE FROM lookup_runs
    WHERE slot_until NOT BETWEEN now() - INTERVAL '1 hour' AND now() + INTERVAL '61 seconds' AND id <> %(run)s
)

INSERT INTO lookup_runs (id, slot_until)
SELECT %(run)s, now() + %(hold)s
WHERE (SELECT count(*) FROM lookup_runs WHERE is_held(slot_until) AND id <> %(run)s) < %(slots)s
ON CONFLICT (id) DO UPDATE SET slot_until = excluded.slot_until
RETURNING id;
