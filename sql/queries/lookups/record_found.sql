-- The one transaction of a coin that was found: its lookup, its row in coins, what a refresh changed, its outcomes.
-- NOT EXISTS spares identity values (each conflict would burn a task_run); the conflict clause is a guard only.
WITH lookup AS (
    UPDATE coin_lookups
    SET
        state = 'found',
        attempts = attempts + (state = 'pending')::integer,
        http_status = 200,
        error = NULL,
        looked_up_at = now(),
        leased_until = NULL,
        pages = next_page,
        next_page = 1,
        exchanges_so_far = '{}',
        refusals = 0,
        refused_at = NULL
    WHERE coin_id = %(coin_id)s AND leased_by = %(run)s AND leased_until IS NOT NULL
    RETURNING coin_id
),

added AS (
    INSERT INTO coins (id, exchanges, complete)
    SELECT coin_id, %(exchanges)s, %(complete)s
    FROM lookup
    WHERE NOT EXISTS (SELECT FROM coins WHERE coins.id = lookup.coin_id)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
),

-- An answer that the page cap cut proves no delisting.
refreshed AS (
    SELECT
        coins.id,
        coins.exchanges AS before,
        CASE
            WHEN %(complete)s THEN %(exchanges)s::text[]
            ELSE ARRAY(
                SELECT exchange COLLATE "C"
                FROM unnest(coins.exchanges || %(exchanges)s::text[]) AS exchange
                GROUP BY 1
                ORDER BY 1
            )
        END AS after
    FROM lookup
    JOIN coins ON coins.id = lookup.coin_id
),

updated AS (
    UPDATE coins
    SET exchanges = refreshed.after, complete = %(complete)s, updated_at = now()
    FROM refreshed
    WHERE
        coins.id = refreshed.id
        AND (coins.exchanges <> refreshed.after OR coins.complete <> %(complete)s)
),

changes AS (
    INSERT INTO coin_listing_changes (coin_id, exchange, change)
    SELECT id, exchange, 'listed' FROM refreshed, unnest(after) AS exchange WHERE exchange <> ALL(before)
    UNION ALL
    SELECT id, exchange, 'delisted' FROM refreshed, unnest(before) AS exchange WHERE exchange <> ALL(after)
),

pending AS (
    SELECT staged.submission_id, staged.coin_id
    FROM staged_coins AS staged
    JOIN lookup ON lookup.coin_id = staged.coin_id
    WHERE staged.outcome IS NULL
    ORDER BY staged.submission_id
    FOR UPDATE OF staged
),

resolved AS (
    UPDATE staged_coins AS staged
    SET
        resolved_at = now(),
        outcome = CASE
            WHEN
                EXISTS (SELECT FROM added)
                AND staged.submission_id = (SELECT min(submission_id) FROM pending)
                THEN 'added'
            ELSE 'already_known'
        END
    FROM pending
    WHERE staged.submission_id = pending.submission_id AND staged.coin_id = pending.coin_id
)

SELECT coin_id FROM lookup;
