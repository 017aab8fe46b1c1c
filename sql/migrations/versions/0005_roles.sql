-- The groups that services and people belong to. Roles are the whole server's: another database's migration may
-- have created them, or be creating them now. What each may do is renewed by every migration: sql/grants.sql.
DO $$
DECLARE
    group_role text;
BEGIN
    FOREACH group_role IN ARRAY ARRAY['coins_receiver', 'coins_pipeline', 'coins_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = group_role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', group_role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- the other migration was quicker
            END;
        END IF;
    END LOOP;
END
$$;
