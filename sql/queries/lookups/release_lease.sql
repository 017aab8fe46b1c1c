-- Hand a lookup back unanswered, at no cost to it: its pages stay, and it is due at once.
UPDATE coin_lookups
SET leased_until = now()
WHERE coin_id = %(coin_id)s AND leased_by = %(run)s AND leased_until IS NOT NULL;
