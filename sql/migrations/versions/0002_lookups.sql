-- One row per distinct id ever wanted: work queue, negative cache and dead letters.

CREATE TABLE coin_lookups (
    coin_id text PRIMARY KEY,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'found', 'unknown', 'failed')),
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    leased_until timestamptz,
    leased_by text,
    next_page integer NOT NULL DEFAULT 1,
    exchanges_so_far text[] NOT NULL DEFAULT '{}',
    http_status integer,
    error text,
    looked_up_at timestamptz
);
COMMENT ON COLUMN coin_lookups.attempts IS 'Lookups that ended in an answer or a timeout since the last requeue.';
COMMENT ON COLUMN coin_lookups.leased_by IS 'The lookup run that holds, or last held, the lease.';
COMMENT ON COLUMN coin_lookups.next_page IS 'Where a lookup that was interrupted goes on.';
CREATE INDEX coin_lookups_pending ON coin_lookups (enqueued_at, coin_id) WHERE state = 'pending';
CREATE INDEX coin_lookups_leased ON coin_lookups (leased_until) WHERE leased_until IS NOT NULL;

CREATE TABLE coins (
    task_run bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    exchanges text[] NOT NULL,
    complete boolean NOT NULL,
    enriched_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE coins IS 'The final table: which exchanges list the coin, in the order the coins were looked up.';
COMMENT ON COLUMN coins.task_run IS 'The order in which coins were looked up.';
COMMENT ON COLUMN coins.id IS 'CoinGecko''s id of the coin.';
COMMENT ON COLUMN coins.enriched_at IS 'When the coin was first looked up.';
COMMENT ON COLUMN coins.updated_at IS 'When its exchanges last changed.';
COMMENT ON COLUMN coins.exchanges IS 'CoinGecko exchange identifiers, sorted and distinct.';
COMMENT ON COLUMN coins.complete IS 'False when the page cap cut the list of tickers.';

-- Runs that take lookups from the queue. A row holds one of LOOKUP_RUNS slots until slot_until, which the
-- run's heartbeat moves on: whatever is killed, the slot is free again a few seconds later.
CREATE TABLE lookup_runs (
    id text PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT now(),
    slot_until timestamptz NOT NULL
);

-- The CoinGecko rate budget, shared by all processes: one row of state, one row per call.
CREATE TABLE rate_budget (
    singleton boolean PRIMARY KEY DEFAULT TRUE CHECK (singleton),
    calls_per_minute integer NOT NULL DEFAULT 0 CHECK (calls_per_minute >= 0),
    advertised_limit integer CHECK (advertised_limit > 0),
    paused_until timestamptz,
    pause_cause text CHECK (pause_cause IN ('rate limit', 'outage', 'access')),
    pause_reason text,
    failures_in_a_row text[] NOT NULL DEFAULT '{}'
);
COMMENT ON COLUMN rate_budget.calls_per_minute IS 'The setting; 0 means no limit.';
COMMENT ON COLUMN rate_budget.advertised_limit IS 'What x-ratelimit-limit said last; it can only lower the budget.';
COMMENT ON COLUMN rate_budget.failures_in_a_row IS 'Distinct failures since the last answer; five open the breaker.';
INSERT INTO rate_budget DEFAULT VALUES;

CREATE TABLE api_calls (
    called_at timestamptz NOT NULL
);
COMMENT ON TABLE api_calls IS 'Calls made to CoinGecko in the last ten minutes.';
CREATE INDEX api_calls_called_at ON api_calls (called_at);

-- Calls a window in force: the setting, lowered by what CoinGecko advertises. NULL means no limit.
CREATE FUNCTION budget_in_force(budget rate_budget) RETURNS integer
LANGUAGE sql IMMUTABLE
RETURN least(nullif(budget.calls_per_minute, 0), budget.advertised_limit);

-- Ask to make one CoinGecko call now. Returns 0 when it may be made, and has counted it then; otherwise
-- the seconds after which it is worth asking again.
--
-- A permit occupies the window for 61/60 of its length: requests reach CoinGecko with jitter, and an exact
-- window would now and then be overrun as the server counts it. While the breaker is open, the end of the
-- pause lets a single probe through and closes the door behind it.
CREATE FUNCTION take_permit(window_seconds double precision, probe_every_seconds double precision)
RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    budget rate_budget;
    right_now timestamptz;
    occupied interval := make_interval(secs => window_seconds * 61 / 60);
    blocking_call timestamptz;
BEGIN
    SELECT * INTO STRICT budget FROM rate_budget FOR UPDATE;
    right_now := clock_timestamp();

    IF budget.paused_until > right_now THEN
        RETURN extract(epoch FROM budget.paused_until - right_now);
    END IF;

    IF budget_in_force(budget) IS NOT NULL THEN
        SELECT called_at INTO blocking_call FROM api_calls
        WHERE called_at > right_now - occupied
        ORDER BY called_at DESC OFFSET budget_in_force(budget) - 1 LIMIT 1;
        IF FOUND THEN
            RETURN extract(epoch FROM blocking_call + occupied - right_now);
        END IF;
    END IF;

    IF cardinality(budget.failures_in_a_row) >= 5 THEN
        UPDATE rate_budget SET paused_until = right_now + make_interval(secs => probe_every_seconds);
    ELSIF budget.paused_until IS NOT NULL THEN
        UPDATE rate_budget SET paused_until = NULL, pause_cause = NULL, pause_reason = NULL;
    END IF;
    INSERT INTO api_calls VALUES (right_now);
    DELETE FROM api_calls WHERE called_at < right_now - greatest(occupied, interval '10 minutes');
    RETURN 0;
END
$$;
