-- Take a slot for a lookup run that is about to be launched, if one is free.
WITH expired AS (
    DELETE FROM lookup_runs WHERE slot_until NOT BETWEEN now() - INTERVAL '1 hour' AND now() + INTERVAL '61 seconds'
)

INSERT INTO lookup_runs (id, slot_until)
SELECT %(run)s, now() + %(hold)s
WHERE (SELECT count(*) FROM lookup_runs WHERE is_held(slot_until)) < %(slots)s
RETURNING id;
