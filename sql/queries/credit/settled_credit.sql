-- What is counted of this month, but for calls whose end is yet to be seen.
SELECT
    month,
    used - (
        SELECT count(*) FROM api_calls
        WHERE api_calls.account = call_credit.account AND NOT is_over AND month_of(called_at) = month
    )::integer AS settled
FROM call_credit
WHERE account = %(account)s AND month = month_of(now());
