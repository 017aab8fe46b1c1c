-- What the UI shows of the lookups after each run is read from an index, however many there are; and what more columns hold.

CREATE INDEX coin_lookups_looked_up ON coin_lookups (looked_up_at) WHERE looked_up_at IS NOT NULL;
CREATE INDEX coin_lookups_failed ON coin_lookups (looked_up_at) WHERE state = 'failed';

COMMENT ON COLUMN submissions.received_at IS 'When the POST was accepted.';
COMMENT ON COLUMN submissions.content_type IS 'As sent: JSON or CSV.';
COMMENT ON COLUMN staged_coins.submission_id IS 'The POST that it came with.';
COMMENT ON COLUMN rate_budget.failures_in_a_row IS 'Failures since the last answer; after five a good coin is asked for.';
COMMENT ON COLUMN coin_catalog.coin_id IS 'CoinGecko''s id of the coin.';
