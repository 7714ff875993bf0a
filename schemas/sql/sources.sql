-- The canonical tables of the agent platform, as far as the projector reads them.
--
-- For the embedded database and the tests only: on a real database these tables belong to the application, and
-- `projector migrate` neither creates nor alters them. Columns and types follow the contract (sources.md); the
-- indexes and triggers are those which that page says a real database has.

-- Time-ordered ids (version 7): PostgreSQL 18 has them built in, older servers get the same layout from a random UUID
-- whose first 48 bits are the clock's milliseconds.
DO $body$
BEGIN
    IF current_setting('server_version_num')::integer >= 180000 THEN
        CREATE OR REPLACE FUNCTION platform_uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE
            AS 'SELECT uuidv7()';
    ELSE
        CREATE OR REPLACE FUNCTION platform_uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE
            AS $function$
                SELECT (
                    lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
                    || '7' || substr(random_hex, 14)
                )::uuid
                FROM (SELECT replace(gen_random_uuid()::text, '-', '') AS random_hex) AS random
            $function$;
    END IF;
END
$body$;

CREATE TABLE organizations (
    org_id bigint PRIMARY KEY,
    public_id text UNIQUE,
    name text NOT NULL
);

CREATE TABLE principals (id uuid PRIMARY KEY DEFAULT platform_uuid_v7());
CREATE TABLE users (id uuid PRIMARY KEY DEFAULT platform_uuid_v7());

CREATE TABLE agents (
    id uuid PRIMARY KEY DEFAULT platform_uuid_v7(),
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    name varchar(255) NOT NULL
);

CREATE TABLE harnesses (
    id uuid PRIMARY KEY DEFAULT platform_uuid_v7(),
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    name varchar(255) NOT NULL
);

CREATE TABLE agent_capabilities (
    agent_id uuid NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    capability_id varchar(255) NOT NULL,
    UNIQUE (agent_id, capability_id)
);

CREATE TABLE harness_capabilities (
    harness_id uuid NOT NULL REFERENCES harnesses (id) ON DELETE CASCADE,
    capability_id varchar(255) NOT NULL,
    UNIQUE (harness_id, capability_id)
);

CREATE TABLE mcp_servers (
    id uuid PRIMARY KEY DEFAULT platform_uuid_v7(),
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    name text NOT NULL
);

CREATE TABLE skills (
    id uuid PRIMARY KEY DEFAULT platform_uuid_v7(),
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    name text NOT NULL
);

CREATE TABLE declarative_capabilities (
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    name text NOT NULL,
    display_name text,
    PRIMARY KEY (org_id, name)
);

CREATE TABLE sessions (
    id uuid PRIMARY KEY DEFAULT platform_uuid_v7(),
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    owner_principal_id uuid NOT NULL,
    resolved_owner_user_id uuid,
    agent_id uuid,
    harness_id uuid,
    app_id uuid,
    blueprint_id text,
    status varchar(50) NOT NULL DEFAULT 'started',
    capabilities jsonb NOT NULL DEFAULT '[]',
    turn_count bigint NOT NULL DEFAULT 0,
    tool_call_count bigint NOT NULL DEFAULT 0,
    total_input_tokens bigint NOT NULL DEFAULT 0,
    total_output_tokens bigint NOT NULL DEFAULT 0,
    total_cache_read_tokens bigint NOT NULL DEFAULT 0,
    total_cache_creation_tokens bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz
);
CREATE INDEX sessions_created_at ON sessions (created_at);
CREATE INDEX sessions_org_id ON sessions (org_id);

CREATE TABLE events (
    id uuid PRIMARY KEY DEFAULT platform_uuid_v7(),
    session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    sequence integer NOT NULL,
    event_type varchar(100) NOT NULL,
    data jsonb NOT NULL DEFAULT '{}',
    context jsonb NOT NULL DEFAULT '{}',
    ts timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (session_id, sequence)
);
CREATE INDEX events_session_id ON events (session_id);
CREATE INDEX events_event_type ON events (event_type);
CREATE INDEX events_tools ON events (session_id, sequence) WHERE event_type = 'tool.completed';
CREATE INDEX events_turns ON events (session_id, sequence)
    WHERE event_type IN ('turn.completed', 'turn.failed', 'turn.cancelled');

CREATE TABLE archived_events (
    id uuid PRIMARY KEY,
    session_id uuid NOT NULL,
    sequence integer NOT NULL,
    event_type varchar(100) NOT NULL,
    data jsonb NOT NULL,
    context jsonb NOT NULL,
    ts timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE llm_generations (
    id uuid PRIMARY KEY DEFAULT platform_uuid_v7(),
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    session_id uuid REFERENCES sessions (id) ON DELETE CASCADE,
    turn_id uuid,
    event_id uuid,
    model text,
    provider text,
    finish_reason text,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cache_read_tokens bigint NOT NULL DEFAULT 0,
    cache_creation_tokens bigint NOT NULL DEFAULT 0,
    duration_ms integer,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX llm_generations_session_id ON llm_generations (session_id);
CREATE INDEX llm_generations_created_at ON llm_generations (created_at);
CREATE INDEX llm_generations_org_created ON llm_generations (org_id, created_at);
CREATE UNIQUE INDEX llm_generations_event_id ON llm_generations (event_id) WHERE event_id IS NOT NULL;

CREATE TABLE budgets (
    id uuid PRIMARY KEY DEFAULT platform_uuid_v7(),
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    subject_type text NOT NULL,
    subject_id text NOT NULL,
    currency text NOT NULL
);

CREATE TABLE usage_ledger (
    id uuid PRIMARY KEY DEFAULT platform_uuid_v7(),
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    budget_id uuid,
    session_id uuid,
    user_id uuid,
    principal_id uuid,
    agent_id uuid,
    harness_id uuid,
    currency text NOT NULL,
    amount double precision NOT NULL,
    meter_source text NOT NULL,
    ref_type text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX usage_ledger_org_created ON usage_ledger (org_id, created_at DESC);

-- A session's updated_at follows every update; its two counts follow its events; events are append-only.

CREATE FUNCTION platform_touch_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
CREATE TRIGGER touch_session BEFORE UPDATE ON sessions
    FOR EACH ROW EXECUTE FUNCTION platform_touch_session();

CREATE FUNCTION platform_count_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE sessions
    SET turn_count = turn_count + (NEW.event_type LIKE 'turn.%')::integer,
        tool_call_count = tool_call_count + (NEW.event_type = 'tool.completed')::integer
    WHERE id = NEW.session_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER count_event AFTER INSERT ON events FOR EACH ROW
    WHEN (NEW.event_type IN ('tool.completed', 'turn.completed', 'turn.failed', 'turn.cancelled'))
    EXECUTE FUNCTION platform_count_event();

CREATE FUNCTION platform_refuse_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are append-only';
END
$$;
CREATE TRIGGER refuse_update BEFORE UPDATE ON events
    FOR EACH ROW EXECUTE FUNCTION platform_refuse_update();
