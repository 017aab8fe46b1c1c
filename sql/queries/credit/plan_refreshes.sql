-- Note how many calls may refresh answers today.
UPDATE call_credit
SET refreshes_planned = %(calls)s, refreshes_planned_on = day_of(now())
FROM rate_budget
WHERE
    call_credit.account = rate_budget.account
    AND call_credit.month = month_of(now())
    AND (refreshes_planned, refreshes_planned_on) IS DISTINCT FROM (%(calls)s, day_of(now()));
