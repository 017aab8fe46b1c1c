-- How many distinct ids were staged, and how many of them are pending.
SELECT
    count(DISTINCT coin_id) AS total,
    count(DISTINCT coin_id) FILTER (WHERE outcome IS NULL) AS pending
FROM staged_coins;
