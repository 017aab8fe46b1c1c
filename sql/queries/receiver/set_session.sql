-- Bound what a statement of this session may take, its waits for locks included, have it answer after the flush, and
-- write dates as the driver reads them, whatever the role or the environment say.
-- No scans of whole tables where an index does: the check that a staged coin's submission exists is planned once, and if
-- submissions was small when it was last analyzed, that would be a scan that grows with every POST until the next time.
SELECT
    set_config('statement_timeout', %(milliseconds)s::text, FALSE),
    set_config('synchronous_commit', 'on', FALSE),
    set_config('datestyle', 'ISO', FALSE),
    set_config('enable_seqscan', 'off', FALSE);
