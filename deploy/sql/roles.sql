-- Three roles with the least that each program needs. Run it in the platform's database, as a superuser or as the owner of the
-- platform's tables with CREATEROLE, before the first `projector migrate` and again after each: it grants on what is
-- there, takes back what it finds beyond that, and may be run any number of times.
--
--   reporting_migrate    `projector migrate`: owns what it creates, reads and writes no row of the platform
--   reporting_projector  `projector run` and the other commands on the database: reads the platform's tables, settles and
--                        prunes outbox rows, writes facts
--   reporting_api        `backfill-api`: as the projector, and enqueues outbox rows, keeps where backfills go on, records actions
--
-- They have no password and cannot log in: make users of your own that do, one for each program:
--
--   CREATE ROLE projector LOGIN PASSWORD '…' IN ROLE reporting_projector;
--   CREATE ROLE reports_api LOGIN PASSWORD '…' IN ROLE reporting_api;
--   CREATE ROLE reports_migrate LOGIN PASSWORD '…' IN ROLE reporting_migrate;
--   ALTER ROLE reports_migrate SET role = 'reporting_migrate';   -- so that what it creates belongs to the role, not to the user
--
-- Where the built-in projector's tables are there already, they belong to the platform's own role, and only their owner may
-- build indexes on them: run `projector migrate` as that role, and this file after it.
DO $body$
DECLARE
    home constant text := (
        SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('organizations')
    );
    platform constant text[] := ARRAY[
        'organizations', 'agents', 'harnesses', 'agent_capabilities', 'harness_capabilities', 'mcp_servers', 'skills',
        'declarative_capabilities', 'sessions', 'events', 'llm_generations', 'budgets', 'usage_ledger'
    ];
    facts constant text[] := ARRAY[
        'fact_llm_generation', 'fact_tool_call', 'fact_turn', 'fact_session', 'fact_budget_posting', 'fact_capability_usage'
    ];
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

    -- The schema of comparison that `projector migrate` rolls back needs CREATE on the database.
    EXECUTE format('GRANT CREATE ON DATABASE %I TO reporting_migrate', current_database());
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %s TO reporting_migrate', home);
    EXECUTE format('GRANT USAGE ON SCHEMA %s TO reporting_projector, reporting_api', home);

    FOR given IN
        SELECT to_regclass(granted.name) AS relation, granted.role, granted.rights
        FROM (
            SELECT unnest(platform), 'reporting_projector', 'SELECT'
            UNION ALL SELECT unnest(platform), 'reporting_api', 'SELECT'
            -- A foreign key needs the right to refer; nothing is read.
            UNION ALL SELECT 'organizations', 'reporting_migrate', 'REFERENCES'
            UNION ALL SELECT unnest(facts), 'reporting_projector', 'SELECT, INSERT, UPDATE, DELETE'
            UNION ALL SELECT unnest(facts), 'reporting_api', 'SELECT, INSERT, UPDATE, DELETE'
            UNION ALL SELECT 'reporting_outbox', 'reporting_projector', 'SELECT, UPDATE, DELETE'
            UNION ALL SELECT 'reporting_outbox', 'reporting_api', 'SELECT, INSERT, UPDATE'
            UNION ALL SELECT 'reporting_projector_migrations', 'reporting_projector', 'SELECT'
            UNION ALL SELECT 'reporting_projector_migrations', 'reporting_api', 'SELECT'
            UNION ALL SELECT 'reporting_backfill_progress', 'reporting_api', 'SELECT, INSERT, UPDATE, DELETE'
            -- Without DELETE: what was done stays on record.
            UNION ALL SELECT 'reporting_actions', 'reporting_api', 'SELECT, INSERT, UPDATE'
        ) AS granted (name, role, rights)
        JOIN pg_class AS class ON class.oid = to_regclass(granted.name) AND NOT pg_has_role(granted.role, class.relowner, 'MEMBER')
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %I', given.relation, given.role);
        EXECUTE format('GRANT %s ON %s TO %I', given.rights, given.relation, given.role);
    END LOOP;
END
$body$;
