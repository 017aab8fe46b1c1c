-- Take turns in claiming slots, so that the count of them in claim_slot cannot be outrun.
SELECT pg_advisory_xact_lock(hashtext('lookup_runs.slot_until'));
