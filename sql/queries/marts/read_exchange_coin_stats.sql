-- Challenge query 1.
SELECT exchange, distinct_coins, median_task_run FROM exchange_coin_stats;
