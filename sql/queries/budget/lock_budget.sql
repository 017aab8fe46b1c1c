-- Take turns with whoever starts or ends a probe, so that no refusal is missed by the one that judges it.
SELECT FROM rate_budget FOR UPDATE;
