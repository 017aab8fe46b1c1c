-- How many distinct ids are pending.
SELECT count(DISTINCT coin_id) AS pending FROM staged_coins WHERE outcome IS NULL;
