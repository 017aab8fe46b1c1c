-- Take turns in leasing, so that the count of leases in lease_lookups cannot be outrun. A lease need not outlive a
-- crash of the database, so nobody waits for the disk.
SELECT
    pg_advisory_xact_lock(hashtext('coin_lookups.leased_until')),
    set_config('synchronous_commit', 'off', TRUE);
