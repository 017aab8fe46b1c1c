-- Have what GET /key says correct the count.
SELECT correct_credit(%(account)s, %(month)s, %(credit)s, %(used)s, %(settled)s);
