-- Land one accepted POST, all or nothing, in one round trip.
WITH submission AS (
    INSERT INTO submissions (client, content_type, body_sha256, duplicates)
    VALUES (%(client)s, %(content_type)s, %(body_sha256)s, %(duplicates)s)
    RETURNING id
),

staged AS (
    INSERT INTO staged_coins (submission_id, coin_id, position)
    SELECT submission.id, coin.id, coin.position
    FROM submission, unnest(%(coin_ids)s::text[], %(positions)s::integer[]) AS coin (id, position)
),

rejected AS (
    INSERT INTO rejected_coins (submission_id, position, value, reason)
    SELECT submission.id, coin.position, coin.value, coin.reason
    FROM
        submission,
        unnest(%(rejected_positions)s::integer[], %(rejected_values)s::text[], %(rejected_reasons)s::text[])
            AS coin (position, value, reason)
)

SELECT id FROM submission;
