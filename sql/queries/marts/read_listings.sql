-- Which exchanges list each coin.
SELECT id, task_run, exchanges
FROM coins;
