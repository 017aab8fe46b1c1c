-- Lease due lookups: ids that CoinGecko lists, then the others, then coins whose answer has grown old; oldest first
-- within each. While listed ids would fill every lease, the tenth call after nine others goes to an id that is not
-- listed. A refresh is leased only when no new id is due, and as the credit allows. All runs together stay within the
-- concurrency, and each within its share. An interrupted lookup goes on at its next page, unless pages will have shifted
-- meanwhile.
WITH vacant AS (
    SELECT
        greatest(
            0,
            least(
                %(wanted)s::integer,
                %(concurrency)s::integer - count(*),
                ceil(
                    %(concurrency)s::double precision
                    / greatest(1, (SELECT count(*) FROM lookup_runs WHERE is_held(slot_until)))
                ) - count(*) FILTER (WHERE leased_by = %(run)s)
            )
        )::integer AS leases
    FROM coin_lookups
    WHERE is_held(leased_until)
),

-- Each locks its rows below its LIMIT, so that one that somebody holds in a transaction is passed over.
listed AS (
    SELECT
        coin_id,
        enqueued_at AS since
    FROM coin_lookups
    WHERE
        state = 'pending'
        AND listed
        AND next_attempt_at <= now()
        AND is_held(leased_until) IS NOT TRUE
    ORDER BY enqueued_at, coin_id
    LIMIT (SELECT leases FROM vacant)
    FOR UPDATE SKIP LOCKED
),

unlisted AS (
    SELECT
        coin_id,
        enqueued_at AS since
    FROM coin_lookups
    WHERE
        state = 'pending'
        AND NOT listed
        AND next_attempt_at <= now()
        AND is_held(leased_until) IS NOT TRUE
    ORDER BY enqueued_at, coin_id
    LIMIT (SELECT leases FROM vacant)
    FOR UPDATE SKIP LOCKED
),

turn_of_unlisted AS (
    UPDATE rate_budget
    SET calls_since_unlisted = 0
    WHERE
        calls_since_unlisted >= 9
        AND EXISTS (SELECT FROM unlisted)
        AND (SELECT count(*) FROM listed) >= (SELECT leases FROM vacant)
    RETURNING singleton
),

grown_old AS (
    SELECT
        lookup.coin_id,
        lookup.looked_up_at AS since,
        lookup.pages
    FROM coin_lookups AS lookup, refresh_allowance AS allowance
    WHERE
        lookup.state = 'found'
        AND lookup.looked_up_at <= now() - %(refresh_after)s::interval
        AND lookup.next_attempt_at <= now()
        AND is_held(lookup.leased_until) IS NOT TRUE
        AND (allowance.calls IS NULL OR allowance.is_untouched OR lookup.pages <= allowance.calls)
    ORDER BY lookup.looked_up_at, lookup.coin_id
    LIMIT (SELECT leases FROM vacant)
    FOR UPDATE OF lookup SKIP LOCKED
),

-- Those whose pages fit, all together; and one that has more pages than a day has calls, as the first of its day.
fitting AS (
    SELECT
        coin_id,
        since
    FROM (
        SELECT
            coin_id,
            since,
            pages,
            sum(pages) OVER (ORDER BY since, coin_id) AS pages_up_to_here
        FROM grown_old
    ) AS counted, refresh_allowance AS allowance
    WHERE
        allowance.calls IS NULL
        OR pages_up_to_here <= allowance.calls
        OR (allowance.is_untouched AND pages_up_to_here = pages)
),

due AS (
    SELECT
        coin_id,
        since,
        2 AS turn
    FROM listed
    UNION ALL
    SELECT
        coin_id,
        since,
        CASE
            WHEN EXISTS (SELECT FROM turn_of_unlisted) AND row_number() OVER (ORDER BY since, coin_id) = 1 THEN 1
            ELSE 3
        END AS turn
    FROM unlisted
    UNION ALL
    SELECT
        coin_id,
        since,
        4 AS turn
    FROM fitting
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
    RETURNING coin_id, attempts, next_page, exchanges_so_far, state, listed
)

SELECT
    leased.coin_id,
    leased.attempts,
    leased.next_page,
    leased.exchanges_so_far,
    leased.listed,
    leased.state = 'found' AS refresh
FROM leased
JOIN due ON due.coin_id = leased.coin_id
ORDER BY due.turn, due.since, due.coin_id;
