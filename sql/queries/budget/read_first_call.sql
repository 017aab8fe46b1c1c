-- The single call that goes first after an outage; it tells whether that is over.
SELECT first_call FROM rate_budget WHERE pause_cause = 'outage';
