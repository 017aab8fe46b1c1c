-- What columns hold, where a name does not say it: for \d+ in psql, and for the column schemas in the UI.

COMMENT ON COLUMN submissions.id IS 'The number in the receiver''s answer.';
COMMENT ON COLUMN submissions.client IS 'The name of the API key, else the address.';
COMMENT ON COLUMN submissions.idempotency_key IS 'As sent, if it was.';
COMMENT ON COLUMN submissions.body_sha256 IS 'Tells a repeated POST from another with the same key.';

COMMENT ON COLUMN staged_coins.coin_id IS 'As sent, trimmed.';
COMMENT ON COLUMN staged_coins.position IS 'Its place among the ids of the POST, from 0.';
COMMENT ON COLUMN staged_coins.outcome IS 'NULL while pending, then added, already_known, unknown or failed.';
COMMENT ON COLUMN staged_coins.resolved_at IS 'When it got its outcome, which was true then.';

COMMENT ON COLUMN rejected_coins.position IS 'Its place among the ids of the POST, from 0.';
COMMENT ON COLUMN rejected_coins.value IS 'The text as sent, cut at 200 characters; JSON of what was no string.';

COMMENT ON TABLE coin_lookups IS 'One row per distinct id ever wanted: work queue, memory of unknown ids, dead letters.';
COMMENT ON COLUMN coin_lookups.coin_id IS 'The id as it was staged.';
COMMENT ON COLUMN coin_lookups.state IS 'pending, then found, unknown (a 404) or failed (a dead letter).';
COMMENT ON COLUMN coin_lookups.enqueued_at IS 'Since when it is wanted: the older come first.';
COMMENT ON COLUMN coin_lookups.next_attempt_at IS 'Before then it is not asked for again.';
COMMENT ON COLUMN coin_lookups.leased_until IS 'A run is at work on it until then, unless it renews the lease.';
COMMENT ON COLUMN coin_lookups.exchanges_so_far IS 'Exchanges on the pages before next_page.';
COMMENT ON COLUMN coin_lookups.http_status IS 'The status that CoinGecko answered last; NULL where there was no whole answer.';
COMMENT ON COLUMN coin_lookups.error IS 'What was wrong with the last answer.';
COMMENT ON COLUMN coin_lookups.looked_up_at IS 'When it was last found, unknown or failed.';

COMMENT ON COLUMN coin_catalog.first_seen_at IS 'When it was first on the list.';

COMMENT ON TABLE lookup_runs IS 'Runs that take lookups from the queue.';
COMMENT ON COLUMN lookup_runs.slot_until IS 'It holds one of LOOKUP_RUNS slots until then, unless its heartbeat moves it on.';

COMMENT ON COLUMN rate_budget.paused_until IS 'No process makes a call before then.';
