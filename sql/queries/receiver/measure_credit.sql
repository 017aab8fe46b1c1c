-- CoinGecko's credit of this month: calls used, its cap (0 for none), calls left, and for how many days they last.
SELECT
    calls_this_month,
    calls_per_month,
    calls_left,
    credit_lasts_days
FROM credit_status;
