-- A lookup run's heartbeat: keep its slot.
INSERT INTO lookup_runs (id, slot_until)
VALUES (%(run)s, now() + %(hold)s)
ON CONFLICT (id) DO UPDATE SET slot_until = excluded.slot_until;
