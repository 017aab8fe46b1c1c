-- Ask to make one call now; 0 seconds means it may be made, and is counted.
SELECT take_permit(%(window_seconds)s::double precision, %(probe_every_seconds)s::double precision);
