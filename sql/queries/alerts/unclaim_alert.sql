-- Give the right back: the alert did not arrive.
DELETE FROM alerts WHERE cause = %(cause)s;
