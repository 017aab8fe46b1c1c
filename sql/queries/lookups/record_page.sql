-- Keep a page of tickers, so that an interruption does not cost its call again.
UPDATE coin_lookups
SET next_page = %(page)s + 1, exchanges_so_far = %(exchanges)s, refusals = 0, refused_at = NULL
WHERE coin_id = %(coin_id)s AND leased_by = %(run)s AND leased_until IS NOT NULL;
