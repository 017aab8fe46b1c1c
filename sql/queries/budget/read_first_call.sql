-- The single call that goes first after an outage, or after five failures in a row whatever pause they followed; it tells
-- whether CoinGecko is down.
SELECT first_call FROM rate_budget WHERE pause_cause = 'outage' OR cardinality(failures_in_a_row) >= 5;
