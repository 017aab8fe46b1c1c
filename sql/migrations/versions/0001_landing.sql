-- What the receiver lands. It only INSERTs; the pipeline fills in outcome and resolved_at.

CREATE TABLE submissions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    client text NOT NULL,
    content_type text NOT NULL,
    idempotency_key text,
    body_sha256 bytea NOT NULL,
    duplicates integer NOT NULL,
    UNIQUE (client, idempotency_key)
);
COMMENT ON TABLE submissions IS 'One row per accepted POST.';
COMMENT ON COLUMN submissions.duplicates IS 'Ids that this POST held more than once, beyond their first.';

CREATE TABLE staged_coins (
    submission_id bigint NOT NULL REFERENCES submissions ON DELETE CASCADE,
    coin_id text NOT NULL,
    position integer NOT NULL,
    outcome text CHECK (outcome IN ('added', 'already_known', 'unknown', 'failed')),
    resolved_at timestamptz,
    PRIMARY KEY (submission_id, coin_id),
    CHECK ((outcome IS NULL) = (resolved_at IS NULL))
);
COMMENT ON TABLE staged_coins IS 'The distinct ids of each submission; outcome is NULL while pending.';
CREATE INDEX staged_coins_pending ON staged_coins (coin_id, submission_id) WHERE outcome IS NULL;

CREATE TABLE rejected_coins (
    submission_id bigint NOT NULL REFERENCES submissions ON DELETE CASCADE,
    position integer NOT NULL,
    value text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (submission_id, position)
);
COMMENT ON TABLE rejected_coins IS 'Ids of an accepted POST that could not be staged, and why.';
