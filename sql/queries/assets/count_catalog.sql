-- How many coins CoinGecko listed when it was asked last.
SELECT count(*) AS coins FROM coin_catalog;
