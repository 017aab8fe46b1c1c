-- Challenge query 2.
SELECT exchange FROM exchanges_with_x;
