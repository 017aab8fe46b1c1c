-- Take turns in leasing, so that the count of leases in lease_lookups cannot be outrun.
SELECT pg_advisory_xact_lock(hashtext('coin_lookups.leased_until'));
