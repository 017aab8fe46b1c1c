-- The lookup runs that hold a slot.
SELECT id FROM lookup_runs WHERE slot_until > now();
