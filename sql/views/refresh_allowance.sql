-- One row: the calls that may still be leased today to refresh answers; NULL where there is no cap. What a refresh that
-- is leased has yet to ask is taken off, by the pages that its coin had last time.
CREATE OR REPLACE VIEW refresh_allowance AS
WITH plan AS (
    SELECT
        credit_in_force(budget.calls_per_month, credit.credit) IS NOT NULL AS is_capped,
        coalesce(credit.refreshes_planned_on = day_of(now()), FALSE) AS is_planned,
        credit.refreshes_planned AS planned,
        credit.refresh_calls[extract(DAY FROM day_of(now()))::integer] AS made
    FROM rate_budget AS budget
    LEFT JOIN call_credit AS credit ON credit.account = budget.account AND credit.month = month_of(now())
),

leased AS (
    SELECT coalesce(sum(greatest(1, pages - next_page + 1)), 0) AS calls
    FROM coin_lookups
    WHERE is_held(leased_until) AND state = 'found'
)

SELECT
    plan.is_planned OR NOT plan.is_capped AS is_planned,
    CASE
        WHEN plan.is_planned AND plan.is_capped THEN greatest(0, plan.planned - plan.made - leased.calls)
        WHEN plan.is_capped THEN 0
    END AS calls,
    plan.is_capped AND plan.is_planned AND plan.planned > 0 AND plan.made + leased.calls = 0 AS is_untouched
FROM plan, leased;
COMMENT ON COLUMN refresh_allowance.is_untouched IS 'None was leased today: a coin of more pages than a day''s calls may go.';
