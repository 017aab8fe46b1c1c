-- Why no run should look anything up now; no row when one may.
SELECT pause_reason FROM pause_in_force WHERE looks_again_at > now();
