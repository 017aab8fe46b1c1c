-- Take the right to send an alert; returns no row when one was sent for this cause a short while ago.
INSERT INTO alerts (cause, sent_at)
VALUES (%(cause)s, now())
ON CONFLICT (cause) DO UPDATE SET sent_at = now()
WHERE alerts.sent_at NOT BETWEEN now() - %(quiet_time)s AND now()
RETURNING cause;
