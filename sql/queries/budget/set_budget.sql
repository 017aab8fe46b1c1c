-- Make the configured limits known to every process; 0 means none.
-- What was advertised under another setting, and so perhaps to another key, says nothing any more. Nor does what another
-- account was refused for, or the list of another CoinGecko; and another month's limit ends the wait for the month.
UPDATE rate_budget
SET
    calls_per_minute = %(calls_per_minute)s,
    account = %(account)s,
    calls_per_month = %(calls_per_month)s,
    refresh_after = %(refresh_after)s,
    advertised_limit = CASE
        WHEN account = %(account)s AND calls_per_minute = %(calls_per_minute)s THEN advertised_limit
    END,
    failures_in_a_row = CASE WHEN account = %(account)s THEN failures_in_a_row ELSE '{}' END,
    paused_until = CASE
        WHEN
            account = %(account)s
            AND (pause_cause <> 'month' OR calls_per_month IS NOT DISTINCT FROM %(calls_per_month)s)
            THEN paused_until
    END,
    first_call = CASE WHEN account = %(account)s THEN first_call END,
    catalog_asked_at = CASE WHEN account = %(account)s THEN catalog_asked_at END,
    catalog_received_at = CASE WHEN account = %(account)s THEN catalog_received_at END
WHERE
    (calls_per_minute, account, calls_per_month, refresh_after)
    IS DISTINCT FROM (
        %(calls_per_minute)s::integer, %(account)s::text, %(calls_per_month)s::integer, %(refresh_after)s::interval
    );
