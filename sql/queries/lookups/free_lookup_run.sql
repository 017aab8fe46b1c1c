-- The run takes no more lookups: the next one may start.
UPDATE lookup_runs SET slot_until = now() WHERE id = %(run)s AND slot_until > now();
