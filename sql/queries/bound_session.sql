-- Bound what a statement of this session may take, its waits for locks included, and have it answer after the flush.
SELECT
    set_config('statement_timeout', %(milliseconds)s::text, FALSE),
    set_config('synchronous_commit', 'on', FALSE);
