-- How much of the month's credit is used, and whether CoinGecko says that it is at an end.
SELECT
    credit.account,
    to_char(now() AT TIME ZONE 'UTC', 'FMMonth YYYY') AS month,
    credit.calls_this_month AS used,
    credit.calls_per_month AS credit,
    credit.credit_lasts_days AS lasts_days,
    pause.pause_reason AS end_reason
FROM credit_status AS credit
LEFT JOIN pause_in_force AS pause ON pause.pause_cause = 'month';
