-- A call has ended: settle both budgets, and the pause that it may have ended.
SELECT end_call(
    %(call_id)s,
    was_sent => %(was_sent)s,
    spends_credit => %(spends_credit)s,
    is_answered => %(is_answered)s,
    advertised => %(advertised_limit)s,
    window_seconds => %(window_seconds)s::double precision
);
