-- How many rows the receiver has landed.
SELECT
    (SELECT count(*) FROM submissions) AS submissions,
    (SELECT count(*) FROM staged_coins) AS staged_coins;
