-- Land accepted POSTs in one commit, all or nothing, in one round trip; returns their numbers in the order sent.
-- Identity values are drawn after ORDER BY has sorted, so the numbers rise with the place that a POST has here.
WITH submission AS (
    INSERT INTO submissions (client, content_type, idempotency_key, body_sha256, duplicates)
    SELECT sent.client, sent.content_type, sent.idempotency_key, sent.body_sha256, sent.duplicates
    FROM
        unnest(
            %(clients)b::text[],
            %(content_types)b::text[],
            %(idempotency_keys)b::text[],
            %(body_sha256s)b::bytea[],
            %(duplicates)b::integer[]
        ) WITH ORDINALITY AS sent (client, content_type, idempotency_key, body_sha256, duplicates, place)
    ORDER BY sent.place
    RETURNING id
),

landed AS (
    SELECT id, row_number() OVER (ORDER BY id) AS place
    FROM submission
),

staged AS (
    INSERT INTO staged_coins (submission_id, coin_id, position)
    SELECT landed.id, coin.id, coin.position
    FROM unnest(%(coin_places)b::bigint[], %(coin_ids)b::text[], %(coin_positions)b::integer[])
        AS coin (place, id, position)
    JOIN landed ON landed.place = coin.place
),

rejected AS (
    INSERT INTO rejected_coins (submission_id, position, value, reason)
    SELECT landed.id, coin.position, coin.value, coin.reason
    FROM
        unnest(
            %(rejected_places)b::bigint[],
            %(rejected_positions)b::integer[],
            %(rejected_values)b::text[],
            %(rejected_reasons)b::text[]
        ) AS coin (place, position, value, reason)
    JOIN landed ON landed.place = coin.place
)

SELECT id FROM landed ORDER BY place;
