-- A call never reached CoinGecko, so that nothing of the budget was spent.
DELETE FROM api_calls WHERE id = %(call_id)s;
