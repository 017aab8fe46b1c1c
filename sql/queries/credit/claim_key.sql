-- Claim the hourly question how much credit the key has; no row when it was asked less than an hour ago, which another
-- run may have claimed while this one waited for the row: hence not now().
INSERT INTO call_credit AS credit (account, month, credit, key_due_at)
SELECT
    %(account)s,
    month_of(now()),
    (SELECT earlier.credit FROM call_credit AS earlier WHERE earlier.account = %(account)s ORDER BY earlier.month DESC LIMIT 1),
    clock_timestamp() + %(every)s
ON CONFLICT (account, month) DO UPDATE SET key_due_at = excluded.key_due_at
WHERE credit.key_due_at IS NULL OR credit.key_due_at NOT BETWEEN clock_timestamp() AND clock_timestamp() + %(every)s
RETURNING credit.month;
