-- Three roles with the least that each program needs. Run it in the platform's database, as a superuser or as the owner of the
-- platform's tables with CREATEROLE, before the first `projector migrate` and again after each: it grants on what is
-- there, takes back whatever else these roles have on the tables named here, and may be run any number of times.
--
--   reporting_migrate    `projector migrate`: owns what it creates, reads and writes no row of the platform
--   reporting_projector  `projector run` and the other commands on the database: reads the platform's tables, settles and
--                        prunes outbox rows, writes facts, publishes changed facts
--   reporting_api        `backfill-api`: as the projector, but deletes no outbox row; enqueues, keeps where backfills go on,
--                        records actions
--
-- They have no password and cannot log in: make users of your own that do, one for each program:
--
--   CREATE ROLE projector LOGIN PASSWORD '…' IN ROLE reporting_projector;
--   CREATE ROLE reports_api LOGIN PASSWORD '…' IN ROLE reporting_api;
--   CREATE ROLE reports_migrate LOGIN PASSWORD '…' IN ROLE reporting_migrate;
--   ALTER ROLE reports_migrate SET role = 'reporting_migrate';   -- so that what it creates belongs to the role, not to the user
--
-- The owner of the platform's tables gets what the application needs on the outbox, and may read the facts. If your application
-- connects as another role, grant that role the same.
--
-- Where the built-in projector's tables are there already, they belong to the platform's own role, and only their owner may
-- build indexes on them: run `projector migrate` as that role, and this file after it.
DO $body$
DECLARE
    home constant text := (
        SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('organizations')
    );
    application constant regrole := (SELECT relowner FROM pg_class WHERE oid = to_regclass('organizations'));
    sources constant text[] := ARRAY[
        'organizations', 'agents', 'harnesses', 'agent_capabilities', 'harness_capabilities', 'mcp_servers', 'skills',
        'declarative_capabilities', 'sessions', 'events', 'llm_generations', 'budgets', 'usage_ledger'
    ];
    others constant text[] := ARRAY['principals', 'users', 'archived_events'];
    facts constant text[] := ARRAY[
        'fact_llm_generation', 'fact_tool_call', 'fact_turn', 'fact_session', 'fact_budget_posting', 'fact_capability_usage'
    ];
    -- What settling, requeuing and enqueuing again write: not what a row is about.
    settle constant text := 'UPDATE (status, attempts, next_attempt_at, last_error, claimed_at, updated_at)';
    joined boolean := false;
    given record;
BEGIN
    IF home IS NULL THEN
        RAISE EXCEPTION 'table organizations is not there: run this in the platform''s own database';
    END IF;
    FOR given IN
        SELECT wanted.role
        FROM unnest(ARRAY['reporting_migrate', 'reporting_projector', 'reporting_api']) AS wanted (role)
        WHERE to_regrole(wanted.role) IS NULL
    LOOP
        EXECUTE format('CREATE ROLE %I NOLOGIN', given.role);
    END LOOP;
    -- Only who is a member of the owner may grant on what it owns.
    IF NOT pg_has_role('reporting_migrate', 'USAGE') THEN
        GRANT reporting_migrate TO CURRENT_USER;
        joined := true;
    END IF;

    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %s TO reporting_migrate', home);
    EXECUTE format('GRANT USAGE ON SCHEMA %s TO reporting_projector, reporting_api', home);

    FOR given IN
        SELECT class.oid::regclass AS relation, granted.role, granted.rights
        FROM (
            SELECT unnest(sources), 'reporting_projector', 'SELECT'
            UNION ALL SELECT unnest(sources), 'reporting_api', 'SELECT'
            -- A foreign key needs the right to refer; nothing is read.
            UNION ALL SELECT 'organizations', 'reporting_migrate', 'REFERENCES'
            UNION ALL SELECT unnest(sources[2:]), 'reporting_migrate', NULL
            UNION ALL
            SELECT unnest(others), role, NULL
            FROM unnest(ARRAY['reporting_migrate', 'reporting_projector', 'reporting_api']) AS role
            UNION ALL SELECT unnest(facts), 'reporting_projector', 'SELECT, INSERT, UPDATE, DELETE'
            UNION ALL SELECT unnest(facts), 'reporting_api', 'SELECT, INSERT, UPDATE, DELETE'
            UNION ALL SELECT unnest(facts), application::text, 'SELECT'
            UNION ALL SELECT 'reporting_outbox', 'reporting_projector', 'SELECT, DELETE, ' || settle
            UNION ALL SELECT 'reporting_outbox', 'reporting_api', 'SELECT, INSERT, ' || settle
            UNION ALL SELECT 'reporting_outbox', application::text, 'SELECT, INSERT, UPDATE, DELETE'
            UNION ALL SELECT 'reporting_projector_migrations', 'reporting_projector', 'SELECT'
            UNION ALL SELECT 'reporting_projector_migrations', 'reporting_api', 'SELECT'
            UNION ALL SELECT 'reporting_backfill_progress', 'reporting_projector', NULL
            UNION ALL SELECT 'reporting_backfill_progress', 'reporting_api', 'SELECT, INSERT, UPDATE, DELETE'
            -- The changelog: facts are captured under the rights of who migrates; a snapshot inserts.
            UNION ALL SELECT 'reporting_fact_changes', 'reporting_projector', 'SELECT, INSERT, DELETE'
            UNION ALL SELECT 'reporting_fact_changes', 'reporting_api', NULL
            UNION ALL
            SELECT
                'reporting_changelog_publisher', 'reporting_projector', 'SELECT, UPDATE (holder, renewed_at, version)'
            UNION ALL SELECT 'reporting_changelog_publisher', 'reporting_api', NULL
            UNION ALL SELECT 'reporting_actions', 'reporting_projector', NULL
            -- What was done, by whom and when stays on record: nothing is deleted, and only how it ends is added.
            UNION ALL
            SELECT
                'reporting_actions', 'reporting_api',
                'SELECT, INSERT (operation, actor, org_id, parameters, request_id), UPDATE (rows, outcome, finished_at)'
        ) AS granted (name, role, rights)
        JOIN pg_class AS class ON class.oid = to_regclass(format('%s.%I', home, granted.name))
        WHERE to_regrole(granted.role) <> class.relowner::regrole
    LOOP
        IF given.role <> application::text THEN
            EXECUTE format('REVOKE ALL ON %s FROM %s', given.relation, given.role);
        END IF;
        IF given.rights IS NOT NULL THEN
            EXECUTE format('GRANT %s ON %s TO %s', given.rights, given.relation, given.role);
        END IF;
    END LOOP;

    IF joined THEN
        REVOKE reporting_migrate FROM CURRENT_USER;
    END IF;
END
$body$;
