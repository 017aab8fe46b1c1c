-- The names of exchanges, so that exchanges_with_x need not read every coin for them.

-- A name stays when its last coin goes: what reads this looks whether a coin still lists it.
CREATE TABLE exchange_names (
    exchange text PRIMARY KEY,
    task_run bigint NOT NULL
);
COMMENT ON TABLE exchange_names IS 'Every exchange that a coin has ever listed, kept by triggers on coins.';
COMMENT ON COLUMN exchange_names.exchange IS 'CoinGecko''s identifier of the exchange.';
COMMENT ON COLUMN exchange_names.task_run IS 'The first of its coins that was seen: where to look first.';

CREATE FUNCTION note_exchange_names() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Sorted, so that two transactions that meet the same new names cannot deadlock.
    INSERT INTO exchange_names (exchange, task_run)
    SELECT listed.exchange, min(written.task_run)
    FROM written
    CROSS JOIN unnest(written.exchanges) AS listed (exchange)
    WHERE
        listed.exchange IS NOT NULL
        AND NOT EXISTS (SELECT FROM exchange_names AS known WHERE known.exchange = listed.exchange)
    GROUP BY listed.exchange
    ORDER BY listed.exchange
    ON CONFLICT (exchange) DO NOTHING;
    RETURN NULL;
END
$$;

CREATE TRIGGER coins_inserted AFTER INSERT ON coins REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION note_exchange_names();
CREATE TRIGGER coins_updated AFTER UPDATE ON coins REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION note_exchange_names();
-- Also where a replica or a restore writes the rows: the view must not miss a name.
ALTER TABLE coins ENABLE ALWAYS TRIGGER coins_inserted;
ALTER TABLE coins ENABLE ALWAYS TRIGGER coins_updated;

INSERT INTO exchange_names (exchange, task_run)
SELECT exchange, min(coins.task_run)
FROM coins
CROSS JOIN unnest(coins.exchanges) AS exchange
WHERE exchange IS NOT NULL
GROUP BY exchange;
