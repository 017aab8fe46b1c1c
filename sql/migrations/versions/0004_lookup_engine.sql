-- What the lookup engine needs to spend the whole budget in the right order, and to keep answers fresh.

-- An id that CoinGecko lists is looked up before one that it does not: a mistyped id must not delay a real one.
CREATE TABLE coin_catalog (
    coin_id text PRIMARY KEY,
    first_seen_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE coin_catalog IS 'The ids in CoinGecko''s /coins/list when it was asked last.';
ALTER TABLE rate_budget ADD COLUMN catalog_asked_at timestamptz;
COMMENT ON COLUMN rate_budget.catalog_asked_at IS 'When /coins/list was asked last: at most hourly.';

ALTER TABLE coin_lookups ADD COLUMN listed boolean NOT NULL DEFAULT FALSE;
COMMENT ON COLUMN coin_lookups.listed IS 'While pending: the id is in coin_catalog.';
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX coin_lookups_pending;
CREATE INDEX coin_lookups_pending ON coin_lookups (listed, enqueued_at, coin_id) WHERE state = 'pending';
CREATE INDEX coin_lookups_pending_ids ON coin_lookups (coin_id) WHERE state = 'pending';
CREATE INDEX coin_lookups_found ON coin_lookups (looked_up_at, coin_id) WHERE state = 'found';

CREATE TABLE coin_listing_changes (
    coin_id text NOT NULL,
    exchange text NOT NULL,
    change text NOT NULL CHECK (change IN ('listed', 'delisted')),
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (coin_id, exchange, seen_at)
);
COMMENT ON TABLE coin_listing_changes IS 'What a refresh of a coin found to be different from the time before.';

-- A call occupies the budget until a whole window after its answer: CoinGecko has counted it by then, however
-- long it was on its way, so that no window can be overrun as the server counts it. Until the answer is there,
-- and for a call whose process was killed, 61/60 of a window from the permit must do. The table is small.
ALTER TABLE api_calls
-- squawk-ignore adding-field-with-default,adding-serial-primary-key-field
    ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ADD COLUMN occupies_until timestamptz NOT NULL DEFAULT now() + INTERVAL '61 seconds';
CREATE INDEX api_calls_occupies_until ON api_calls (occupies_until);

-- Ask to make one CoinGecko call now. call_id is the call, counted, when it may be made; otherwise it is NULL and
-- wait_seconds says after how long it is worth asking again. While the breaker is open, the end of the pause lets
-- a single probe through and closes the door behind it.
-- squawk-ignore ban-drop-function
DROP FUNCTION take_permit(double precision, double precision);
CREATE FUNCTION take_permit(
    window_seconds double precision,
    probe_every_seconds double precision,
    OUT call_id bigint,
    OUT wait_seconds double precision
)
LANGUAGE plpgsql AS $$
DECLARE
    budget rate_budget;
    right_now timestamptz;
    blocked_until timestamptz;
BEGIN
    SELECT * INTO STRICT budget FROM rate_budget FOR UPDATE;
    right_now := clock_timestamp();

    IF budget.paused_until > right_now THEN
        wait_seconds := extract(epoch FROM budget.paused_until - right_now);
        RETURN;
    END IF;

    IF budget_in_force(budget) IS NOT NULL THEN
        SELECT occupies_until INTO blocked_until FROM api_calls
        WHERE occupies_until > right_now
        ORDER BY occupies_until DESC OFFSET budget_in_force(budget) - 1 LIMIT 1;
        IF FOUND THEN
            wait_seconds := extract(epoch FROM blocked_until - right_now);
            RETURN;
        END IF;
    ELSE
        -- With no limit the log of calls is for people to read: nobody waits for the disk.
        PERFORM set_config('synchronous_commit', 'off', TRUE);
    END IF;

    IF cardinality(budget.failures_in_a_row) >= 5 THEN
        UPDATE rate_budget
        SET paused_until = right_now + make_interval(secs => probe_every_seconds), pause_cause = 'outage';
    ELSIF budget.paused_until IS NOT NULL THEN
        UPDATE rate_budget SET paused_until = NULL, pause_cause = NULL, pause_reason = NULL;
    END IF;
    wait_seconds := 0;
    INSERT INTO api_calls (called_at, occupies_until)
    VALUES (right_now, right_now + make_interval(secs => window_seconds * 61 / 60))
    RETURNING id INTO call_id;
    DELETE FROM api_calls WHERE called_at < right_now - interval '10 minutes' AND occupies_until < right_now;
END
$$;
