-- The final table, for checks that recompute what follows from it.
SELECT task_run, id, exchanges FROM coins;
