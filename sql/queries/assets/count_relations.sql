-- How many rows the tables have that grow with what is looked up.
SELECT
    (SELECT count(*) FROM coin_catalog) AS coin_catalog,
    (SELECT count(*) FROM coin_lookups) AS coin_lookups,
    (SELECT count(*) FROM coins) AS coins;
