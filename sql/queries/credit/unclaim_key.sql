-- The key was not asked for after all, so that another run may.
UPDATE call_credit SET key_due_at = NULL WHERE account = %(account)s AND month = month_of(now());
