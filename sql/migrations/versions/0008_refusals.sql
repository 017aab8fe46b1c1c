-- Refusals: what a pause may be called, which ids met one, and the probe that tells whose it is.

ALTER TABLE rate_budget
-- squawk-ignore ban-drop-constraint
    DROP CONSTRAINT rate_budget_pause_cause_check,
-- squawk-ignore constraint-missing-not-valid
    ADD CONSTRAINT rate_budget_pause_cause_check
    CHECK (pause_cause IN ('rate limit', 'outage', 'access', 'month', 'address')),
    ADD COLUMN probe text,
    ADD COLUMN probe_until timestamptz;
COMMENT ON COLUMN rate_budget.probe IS 'The probe under way: it finds out whether a refusal was for one id or for everybody.';
COMMENT ON COLUMN rate_budget.probe_until IS 'The probe counts as lost then.';

ALTER TABLE coin_lookups
    ADD COLUMN refusals integer NOT NULL DEFAULT 0,
    ADD COLUMN refused_at timestamptz;
COMMENT ON COLUMN coin_lookups.refusals IS 'Refusals that it met since its last answer: each sends it further back.';
COMMENT ON COLUMN coin_lookups.refused_at IS 'It was refused without an error code then, and no probe has told yet whose refusal that was.';
CREATE INDEX coin_lookups_refused ON coin_lookups (coin_id) WHERE refused_at IS NOT NULL;
