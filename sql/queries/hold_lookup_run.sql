-- A lookup run's heartbeat: keep its slot, and its leases.
WITH slot AS (
    INSERT INTO lookup_runs (id, slot_until)
    VALUES (%(run)s, now() + %(hold)s)
    ON CONFLICT (id) DO UPDATE SET slot_until = EXCLUDED.slot_until
)

UPDATE coin_lookups
SET leased_until = now() + %(lease)s
WHERE leased_by = %(run)s AND leased_until > now();
