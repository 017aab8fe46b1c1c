-- When each cause was last alerted, so that a lasting trouble does not flood the channel.

CREATE TABLE alerts (
    cause text PRIMARY KEY,
    sent_at timestamptz NOT NULL
);
COMMENT ON TABLE alerts IS 'One row per cause: the last alert that was sent for it.';
