-- The list of coins was not asked for after all, so that another run may.
UPDATE rate_budget SET catalog_asked_at = NULL;
