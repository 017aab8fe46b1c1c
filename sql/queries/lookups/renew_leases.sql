-- A lookup run's heartbeat: keep the leases that it holds.
UPDATE coin_lookups
SET leased_until = now() + %(hold)s
WHERE leased_by = %(run)s AND is_held(leased_until);
