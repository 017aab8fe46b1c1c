-- What each group may do, from nothing; every migration runs this after the views, so that new tables are covered.

DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format(
        'GRANT CONNECT ON DATABASE %I TO coins_receiver, coins_pipeline, coins_reader', current_database()
    );
END
$$;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM coins_receiver, coins_pipeline, coins_reader;

-- The receiver lands submissions, reads back what became of them, and shows figures.
GRANT SELECT, INSERT ON submissions, staged_coins, rejected_coins TO coins_receiver;
GRANT SELECT ON coins, alembic_version, credit_status TO coins_receiver;

-- The pipeline resolves and clears away what was landed, and owns everything behind that.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO coins_pipeline;
REVOKE INSERT, UPDATE ON submissions, staged_coins, rejected_coins FROM coins_pipeline;
GRANT UPDATE (outcome, resolved_at) ON staged_coins TO coins_pipeline;
REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM coins_pipeline;
REVOKE DELETE ON coins, rate_budget FROM coins_pipeline;

-- People and reports read answers.
GRANT SELECT
ON coins, coin_listing_changes, exchange_coin_stats, exchanges_with_x, pipeline_status, credit_status, calls_by_day
TO coins_reader;
