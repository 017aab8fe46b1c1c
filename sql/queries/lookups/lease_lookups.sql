-- Lease due lookups: ids that CoinGecko lists, then the others, then coins whose answer has grown old; oldest first
-- within each, and an id that has waited an hour counts as listed. All runs together stay within the concurrency, and
-- each within its share. An interrupted lookup goes on at its next page, unless pages will have shifted meanwhile.
WITH vacant AS (
    SELECT
        greatest(
            0,
            least(
                %(wanted)s::integer,
                %(concurrency)s::integer - count(*),
                ceil(
                    %(concurrency)s::double precision
                    / greatest(1, (SELECT count(*) FROM lookup_runs WHERE slot_until > now()))
                ) - count(*) FILTER (WHERE leased_by = %(run)s)
            )
        )::integer AS leases
    FROM coin_lookups
    WHERE leased_until > now()
),

-- Each locks its rows below its LIMIT, so that one that somebody holds in a transaction is passed over.
listed AS (
    SELECT
        coin_id,
        1 AS turn,
        enqueued_at AS since
    FROM coin_lookups
    WHERE
        state = 'pending'
        AND listed
        AND next_attempt_at <= now()
        AND (leased_until IS NULL OR leased_until <= now())
    ORDER BY enqueued_at, coin_id
    LIMIT (SELECT leases FROM vacant)
    FOR UPDATE SKIP LOCKED
),

unlisted AS (
    SELECT
        coin_id,
        CASE WHEN enqueued_at <= now() - INTERVAL '1 hour' THEN 1 ELSE 2 END AS turn,
        enqueued_at AS since
    FROM coin_lookups
    WHERE
        state = 'pending'
        AND NOT listed
        AND next_attempt_at <= now()
        AND (leased_until IS NULL OR leased_until <= now())
    ORDER BY enqueued_at, coin_id
    LIMIT (SELECT leases FROM vacant)
    FOR UPDATE SKIP LOCKED
),

grown_old AS (
    SELECT
        coin_id,
        3 AS turn,
        looked_up_at AS since
    FROM coin_lookups
    WHERE
        state = 'found'
        AND looked_up_at <= now() - %(refresh_after)s::interval
        AND next_attempt_at <= now()
        AND (leased_until IS NULL OR leased_until <= now())
    ORDER BY looked_up_at, coin_id
    LIMIT (SELECT leases FROM vacant)
    FOR UPDATE SKIP LOCKED
),

due AS (
    SELECT * FROM listed
    UNION ALL
    SELECT * FROM unlisted
    UNION ALL
    SELECT * FROM grown_old
    ORDER BY turn, since, coin_id
    LIMIT (SELECT leases FROM vacant)
),

-- By an array and not by a join: the planner takes a LIMIT that it cannot know for a tenth of the backlog, and would
-- scan the table for so many.
leased AS (
    UPDATE coin_lookups
    SET
        leased_until = now() + %(hold)s,
        leased_by = %(run)s,
        next_page = CASE WHEN leased_until > now() - INTERVAL '10 minutes' THEN next_page ELSE 1 END,
        exchanges_so_far
            = CASE WHEN leased_until > now() - INTERVAL '10 minutes' THEN exchanges_so_far ELSE '{}' END
    WHERE coin_id = ANY(ARRAY(SELECT coin_id FROM due))
    RETURNING coin_id, attempts, next_page, exchanges_so_far, state
)

SELECT
    leased.coin_id,
    leased.attempts,
    leased.next_page,
    leased.exchanges_so_far,
    leased.state = 'found' AS refresh
FROM leased
JOIN due ON due.coin_id = leased.coin_id
ORDER BY due.turn, due.since, due.coin_id;
