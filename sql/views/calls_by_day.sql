-- A row for each account and day of a month (UTC): the calls that count against its credit, by what they were for.
CREATE OR REPLACE VIEW calls_by_day AS
SELECT
    account,
    month + (number - 1) AS day,
    lookup_calls[number] AS for_lookups,
    refresh_calls[number] AS for_refreshes
FROM call_credit, generate_series(1, 31) AS number
WHERE month + (number - 1) < month + INTERVAL '1 month';
COMMENT ON COLUMN calls_by_day.for_lookups IS 'For new ids, and for the list of coins.';
COMMENT ON COLUMN calls_by_day.for_refreshes IS 'To see whether the answers that are known have changed.';
