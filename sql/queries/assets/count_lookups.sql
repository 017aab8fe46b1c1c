-- How many distinct ids were ever wanted.
SELECT count(*) AS lookups FROM coin_lookups;
