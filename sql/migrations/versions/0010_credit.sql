-- CoinGecko's second budget, the calls of a calendar month, and the order that spends them well.

-- The month that a moment is in, as CoinGecko has it: of UTC.
CREATE FUNCTION month_of(moment timestamptz) RETURNS date
LANGUAGE sql IMMUTABLE
RETURN date_trunc('month', moment AT TIME ZONE 'UTC')::date;

-- The day that a moment is in, of UTC.
CREATE FUNCTION day_of(moment timestamptz) RETURNS date
LANGUAGE sql IMMUTABLE
RETURN (moment AT TIME ZONE 'UTC')::date;

CREATE TABLE call_credit (
    account text NOT NULL,
    month date NOT NULL CHECK (extract(DAY FROM month) = 1),
    counted_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    credit integer CHECK (credit >= 0),
    key_due_at timestamptz,
    used integer NOT NULL DEFAULT 0,
    lookup_calls integer [] NOT NULL DEFAULT array_fill(0, ARRAY[31]),
    refresh_calls integer [] NOT NULL DEFAULT array_fill(0, ARRAY[31]),
    refreshes_planned integer,
    refreshes_planned_on date,
    PRIMARY KEY (account, month)
);
COMMENT ON TABLE call_credit IS 'Calls that count against CoinGecko''s credit: a row for each account and month.';
COMMENT ON COLUMN call_credit.account IS 'A digest of host, plan and key.';
COMMENT ON COLUMN call_credit.month IS 'Its first day, of UTC.';
COMMENT ON COLUMN call_credit.credit IS 'What GET /key says the month''s calls are; NULL where it was never answered.';
COMMENT ON COLUMN call_credit.key_due_at IS 'When GET /key is asked next; NULL where it never was.';
COMMENT ON COLUMN call_credit.used IS 'Answered with 200, under way, or of unknown end; corrected by what GET /key says.';
COMMENT ON COLUMN call_credit.lookup_calls IS 'Of these, those for new ids and for the list, by day of the month.';
COMMENT ON COLUMN call_credit.refresh_calls IS 'Of these, those that refreshed answers, by day of the month.';
COMMENT ON COLUMN call_credit.refreshes_planned IS 'Calls that may refresh answers on the day refreshes_planned_on.';

ALTER TABLE rate_budget
    ADD COLUMN account text NOT NULL DEFAULT '',
    ADD COLUMN calls_per_month integer DEFAULT 0 CHECK (calls_per_month >= 0),
    ADD COLUMN refresh_after interval,
    ADD COLUMN pause_length interval,
    ADD COLUMN first_call bigint,
    ADD COLUMN calls_since_unlisted integer NOT NULL DEFAULT 0,
    ADD COLUMN catalog_received_at timestamptz;
COMMENT ON COLUMN rate_budget.account IS 'A digest of host, plan and key: whose credit is used.';
COMMENT ON COLUMN rate_budget.calls_per_month IS 'The setting; 0 means no cap, NULL what GET /key says.';
COMMENT ON COLUMN rate_budget.refresh_after IS 'The setting: the age at which an answer is old; NULL is never.';
COMMENT ON COLUMN rate_budget.pause_length IS 'A pause that ends later than so long from now is over: the clock was set back.';
COMMENT ON COLUMN rate_budget.first_call IS 'The single call that goes first after a pause, while it is under way.';
COMMENT ON COLUMN rate_budget.calls_since_unlisted IS 'Calls since one went to an id that is not on the list, up to 9.';
COMMENT ON COLUMN rate_budget.catalog_received_at IS 'How old the list in coin_catalog is.';
COMMENT ON COLUMN rate_budget.catalog_asked_at IS 'When /coins/list was asked last: at most hourly.';

ALTER TABLE api_calls
    ADD COLUMN account text,
    ADD COLUMN is_refresh boolean NOT NULL DEFAULT FALSE,
    ADD COLUMN is_over boolean NOT NULL DEFAULT FALSE;
COMMENT ON COLUMN api_calls.account IS 'Whose credit it has reserved; NULL when it costs none.';
COMMENT ON COLUMN api_calls.is_over IS 'Its end was seen.';

ALTER TABLE coin_lookups
    ADD COLUMN compared boolean NOT NULL DEFAULT FALSE,
    ADD COLUMN pages integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN coin_lookups.compared IS 'While pending: listed is by a list that was fresh.';
COMMENT ON COLUMN coin_lookups.pages IS 'Calls that the last answer took.';
CREATE INDEX coin_lookups_uncompared ON coin_lookups (coin_id) WHERE state = 'pending' AND NOT compared;

-- Calls a month in force: the setting, lowered by what GET /key says. NULL means no cap.
CREATE FUNCTION credit_in_force(setting integer, of_key integer) RETURNS integer
LANGUAGE sql IMMUTABLE
RETURN CASE WHEN setting = 0 THEN NULL ELSE least(setting, of_key) END;

-- Whether the pause that is noted holds. One that ends further ahead than it is long was noted before the clock was
-- set back; the second is for a look that began just before the pause did.
CREATE FUNCTION is_paused(budget rate_budget, moment timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN coalesce(
    budget.paused_until > moment
    AND (budget.pause_length IS NULL OR budget.paused_until - moment <= budget.pause_length + INTERVAL '1 second'),
    FALSE
);

-- Whether a lease or a slot holds; NULL for none. None is given for more than a minute: one that ends later was given before the clock
-- was set back.
CREATE FUNCTION is_held(held_until timestamptz) RETURNS boolean
LANGUAGE sql STABLE
RETURN held_until > now() AND held_until <= now() + INTERVAL '61 seconds';

-- Whether the list of coins is fresh enough to say that an id is not on it. Each costs a credit, where there is a cap.
CREATE FUNCTION catalog_is_fresh() RETURNS boolean
LANGUAGE sql STABLE
RETURN (
    SELECT
        coalesce(
            budget.catalog_received_at <= now()
            AND budget.catalog_received_at > now() - CASE
                WHEN credit_in_force(budget.calls_per_month, credit.credit) IS NULL THEN INTERVAL '1 hour'
                ELSE INTERVAL '6 hours'
            END,
            FALSE
        )
    FROM rate_budget AS budget
    LEFT JOIN call_credit AS credit ON credit.account = budget.account AND credit.month = month_of(now())
);

-- Return the account's row for the month; a new month begins with what GET /key said in the last one.
CREATE FUNCTION credit_of(the_account text, moment timestamptz) RETURNS call_credit
LANGUAGE plpgsql AS $$
DECLARE
    credit call_credit;
BEGIN
    SELECT * INTO credit FROM call_credit WHERE account = the_account AND month = month_of(moment);
    IF NOT FOUND THEN
        INSERT INTO call_credit (account, month, credit)
        SELECT
            the_account,
            month_of(moment),
            (
                SELECT earlier.credit FROM call_credit AS earlier
                WHERE earlier.account = the_account ORDER BY earlier.month DESC LIMIT 1
            )
        ON CONFLICT (account, month) DO UPDATE SET account = excluded.account
        RETURNING * INTO credit;
    END IF;
    RETURN credit;
END
$$;

-- Count a call in the month and on the day that it was permitted in; -1 gives it back.
CREATE FUNCTION count_credit(the_account text, moment timestamptz, for_refresh boolean, calls integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    today integer := extract(day FROM day_of(moment));
BEGIN
    IF for_refresh THEN
        UPDATE call_credit SET used = used + calls, refresh_calls[today] = refresh_calls[today] + calls
        WHERE account = the_account AND month = month_of(moment);
    ELSE
        UPDATE call_credit SET used = used + calls, lookup_calls[today] = lookup_calls[today] + calls
        WHERE account = the_account AND month = month_of(moment);
    END IF;
END
$$;

-- Ask to make one CoinGecko call now. call_id is the call, counted, when it may be made; otherwise it is NULL and
-- wait_seconds says after how long it is worth asking again.
--
-- It is counted in two budgets, the minute's and the month's; one with the purpose 'key' in the minute's only. After a
-- pause a single call goes first, and closes the door behind it until it has ended. Locks are taken in the order
-- rate_budget, call_credit, as end_call does.
-- squawk-ignore ban-drop-function
DROP FUNCTION take_permit(double precision, double precision);
CREATE FUNCTION take_permit(
    the_account text,
    month_setting integer,
    purpose text,
    window_seconds double precision,
    longest_call_seconds double precision,
    OUT call_id bigint,
    OUT wait_seconds double precision
)
LANGUAGE plpgsql AS $$
DECLARE
    budget rate_budget;
    credit call_credit;
    month_cap integer;
    right_now timestamptz;
    occupied interval := make_interval(secs => window_seconds * 61 / 60);
    longest_call interval := make_interval(secs => longest_call_seconds);
    soon constant double precision := 0.25;
    blocked_until timestamptz;
BEGIN
    SELECT * INTO STRICT budget FROM rate_budget FOR UPDATE;
    right_now := clock_timestamp();

    IF is_paused(budget, right_now) THEN
        wait_seconds := CASE
            WHEN budget.first_call IS NULL THEN extract(epoch FROM budget.paused_until - right_now)
            ELSE soon
        END;
        RETURN;
    END IF;

    IF purpose <> 'key' THEN
        credit := credit_of(the_account, right_now);
        month_cap := credit_in_force(month_setting, credit.credit);
        IF credit.used >= month_cap THEN
            -- A call that is under way may give its credit back.
            wait_seconds := CASE
                WHEN EXISTS (
                    SELECT FROM api_calls
                    WHERE
                        account = the_account
                        AND NOT is_over
                        AND called_at BETWEEN right_now - longest_call AND right_now
                ) THEN soon
                ELSE extract(epoch FROM (credit.month + INTERVAL '1 month') AT TIME ZONE 'UTC' - right_now)
            END;
            RETURN;
        END IF;
    END IF;

    -- Calls that occupy the window for longer than any can were made before the clock was set back.
    DELETE FROM api_calls WHERE occupies_until > right_now + occupied + interval '1 second';
    IF budget_in_force(budget) IS NOT NULL THEN
        SELECT occupies_until INTO blocked_until FROM api_calls
        WHERE occupies_until > right_now
        ORDER BY occupies_until DESC OFFSET budget_in_force(budget) - 1 LIMIT 1;
        IF FOUND THEN
            wait_seconds := extract(epoch FROM blocked_until - right_now);
            RETURN;
        END IF;
    ELSIF month_cap IS NULL THEN
        -- With no limit the log of calls is for people to read: nobody waits for the disk.
        PERFORM set_config('synchronous_commit', 'off', TRUE);
    END IF;
    IF month_cap IS NOT NULL THEN
        -- A call that was made and not counted, after a crash of the database, would be one too many.
        PERFORM set_config('synchronous_commit', 'on', TRUE);
    END IF;

    wait_seconds := 0;
    INSERT INTO api_calls (called_at, occupies_until, account, is_refresh)
    VALUES (right_now, right_now + occupied, CASE WHEN purpose <> 'key' THEN the_account END, purpose = 'refresh')
    RETURNING id INTO call_id;
    IF purpose <> 'key' THEN
        PERFORM count_credit(the_account, right_now, purpose = 'refresh', 1);
    END IF;

    IF budget.pause_cause IS NOT NULL OR cardinality(budget.failures_in_a_row) >= 5 THEN
        UPDATE rate_budget SET
            paused_until = right_now + longest_call,
            pause_length = longest_call,
            pause_cause = coalesce(pause_cause, 'outage'),
            pause_reason = coalesce(pause_reason, 'CoinGecko did not answer'),
            first_call = call_id;
    END IF;
    IF purpose <> 'unlisted' AND budget.calls_since_unlisted < 9 THEN
        UPDATE rate_budget SET calls_since_unlisted = calls_since_unlisted + 1;
    END IF;
    DELETE FROM api_calls WHERE called_at < right_now - interval '10 minutes' AND occupies_until < right_now;
END
$$;

-- A call has ended. One that was never sent counts in neither budget; one that cost no credit gives it back. CoinGecko's
-- window cannot hold it for longer than a window from now. The answer to the single call after a pause ends the pause,
-- and any answer an outage; without one a second is left to what the failure means, and again a single call goes first.
CREATE FUNCTION end_call(
    the_call bigint,
    was_sent boolean,
    spends_credit boolean,
    is_answered boolean,
    advertised integer,
    window_seconds double precision
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    ended api_calls;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', TRUE);
    IF is_answered THEN
        UPDATE rate_budget SET
            failures_in_a_row = '{}',
            advertised_limit = coalesce(advertised, advertised_limit)
        WHERE
            failures_in_a_row <> '{}'
            OR advertised_limit IS DISTINCT FROM coalesce(advertised, advertised_limit);
        UPDATE rate_budget SET
            paused_until = NULL, pause_length = NULL, pause_cause = NULL, pause_reason = NULL, first_call = NULL
        WHERE first_call = the_call OR pause_cause = 'outage';
    ELSE
        UPDATE rate_budget SET
            paused_until = clock_timestamp() + INTERVAL '1 second',
            pause_length = INTERVAL '1 second',
            first_call = NULL
        WHERE first_call = the_call;
    END IF;

    IF was_sent THEN
        UPDATE api_calls
        SET is_over = TRUE, occupies_until = clock_timestamp() + make_interval(secs => window_seconds)
        WHERE id = the_call AND NOT is_over
        RETURNING * INTO ended;
    ELSE
        DELETE FROM api_calls WHERE id = the_call AND NOT is_over RETURNING * INTO ended;
    END IF;
    IF ended.account IS NOT NULL AND NOT (was_sent AND spends_credit) THEN
        PERFORM count_credit(ended.account, ended.called_at, ended.is_refresh, -1);
        IF EXISTS (
            SELECT FROM rate_budget AS budget, call_credit AS credit
            WHERE
                credit.account = ended.account
                AND credit.month = month_of(ended.called_at)
                AND credit_in_force(budget.calls_per_month, credit.credit) IS NOT NULL
        ) THEN
            PERFORM set_config('synchronous_commit', 'on', TRUE);
        END IF;
    END IF;
END
$$;

-- Have GET /key correct the count: other programs may use the key, and calls whose end nobody saw may have cost nothing.
-- settled_before is what settled_credit returned before the question, whose answer cannot have what came after. Not
-- upwards in a month's first hour, when it may still be the old month's.
CREATE FUNCTION correct_credit(
    the_account text,
    the_month date,
    of_key integer,
    used_of_key integer,
    settled_before integer,
    moment timestamptz DEFAULT clock_timestamp()
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    begins_at timestamptz := the_month::timestamp AT TIME ZONE 'UTC';
BEGIN
    PERFORM FROM rate_budget FOR UPDATE;
    UPDATE call_credit SET
        credit = of_key,
        used = greatest(
            0,
            CASE
                WHEN moment >= begins_at + INTERVAL '1 hour' THEN used_of_key + used - settled_before
                ELSE least(used, used_of_key + used - settled_before)
            END
        )
    WHERE account = the_account AND month = the_month;
END
$$;

-- The view has new columns in between, and is made anew with the others.
-- squawk-ignore ban-drop-view
DROP VIEW IF EXISTS pipeline_status;
