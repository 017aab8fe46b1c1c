-- The processes of all lookup runs are gone: their slots and their leases are free at once.
WITH slots AS (
    UPDATE lookup_runs SET slot_until = now() WHERE slot_until > now()
)

UPDATE coin_lookups SET leased_until = now() WHERE leased_until > now();
