-- Put a lookup that got no usable answer back into the queue, to be tried again later.
UPDATE coin_lookups
SET
    attempts = attempts + %(attempts_spent)s,
    next_attempt_at = now() + %(backoff)s,
    http_status = %(http_status)s,
    error = %(error)s,
    refused_at = NULL,
    leased_until = now()
WHERE coin_id = %(coin_id)s AND leased_by = %(run)s AND leased_until IS NOT NULL;
