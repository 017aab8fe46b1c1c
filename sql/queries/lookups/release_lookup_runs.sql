-- The processes of these lookup runs are gone: their slots and their leases are free at once.
WITH slots AS (
    UPDATE lookup_runs SET slot_until = now() WHERE id = ANY(%(runs)s) AND slot_until > now()
)

UPDATE coin_lookups SET leased_until = now() WHERE leased_by = ANY(%(runs)s) AND leased_until > now();
