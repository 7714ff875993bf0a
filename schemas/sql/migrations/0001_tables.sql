-- The outbox, the facts and the functions that projections use. Tables that are there already stay as they are: the
-- program has compared them with these definitions before it runs this file.

-- Ids of outbox rows: time-ordered (version 7). PostgreSQL 18 has them built in; older servers get the same layout from
-- a random UUID whose first 48 bits are the clock's milliseconds.
DO $body$
BEGIN
    IF current_setting('server_version_num')::integer >= 180000 THEN
        CREATE OR REPLACE FUNCTION reporting_uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
            AS 'SELECT uuidv7()';
    ELSE
        CREATE OR REPLACE FUNCTION reporting_uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
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

-- The count that a JSON scalar's text stands for: digits alone that fit bigint, else the default.
CREATE OR REPLACE FUNCTION reporting_count(value text, default_value bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT CASE
            WHEN value !~ '^[0-9]+$' THEN default_value
            WHEN length(ltrim(value, '0')) < 19 THEN ('0' || ltrim(value, '0'))::bigint
            WHEN length(ltrim(value, '0')) = 19 AND ltrim(value, '0') COLLATE "C" <= '9223372036854775807'
                THEN ltrim(value, '0')::bigint
            ELSE default_value
        END
    $$;

-- Text that fits an index: longer than 1,000 bytes, it becomes its first 200 characters and its SHA-256. A text that has
-- the form of such a short one already is shortened too, so that no two texts become the same.
CREATE OR REPLACE FUNCTION reporting_fit(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT CASE
            WHEN octet_length(value) <= 1000 AND NOT (length(value) = 265 AND substr(value, 201, 1) = '#') THEN value
            ELSE left(value, 200) || '#' || encode(sha256(convert_to(value, 'UTF8')), 'hex')
        END
    $$;

-- A JSON scalar's text; null for what is absent, null, an object or an array.
CREATE OR REPLACE FUNCTION reporting_text(document jsonb, key text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT CASE
            WHEN jsonb_typeof(document -> key) IN ('string', 'number', 'boolean') THEN document ->> key
        END
    $$;

-- A capability's id: a non-empty JSON string, else null.
CREATE OR REPLACE FUNCTION reporting_capability_id(document jsonb, key text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT CASE WHEN jsonb_typeof(document -> key) = 'string' THEN NULLIF(document ->> key, '') END
    $$;

-- A sum as bigint: what would not fit takes the nearest bound.
CREATE OR REPLACE FUNCTION reporting_total(sum numeric) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT LEAST(GREATEST(sum, -9223372036854775808), 9223372036854775807)::bigint
    $$;

CREATE TABLE IF NOT EXISTS reporting_outbox (
    id uuid PRIMARY KEY DEFAULT reporting_uuid_v7(),
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    source_type text NOT NULL,
    source_id text NOT NULL,
    source_version text NOT NULL DEFAULT '',
    reason text NOT NULL,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    last_error text,
    claimed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (org_id, source_type, source_id, source_version, reason)
);

CREATE TABLE IF NOT EXISTS fact_llm_generation (
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    source_key text NOT NULL,
    session_id uuid,
    turn_id text,
    user_id uuid,
    principal_id uuid,
    agent_id uuid,
    agent_name_snapshot text,
    harness_id uuid,
    harness_name_snapshot text,
    app_id uuid,
    blueprint_id text,
    created_at timestamptz NOT NULL,
    time_bucket_day date NOT NULL,
    model text,
    provider text,
    finish_reason text,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cache_read_tokens bigint NOT NULL DEFAULT 0,
    cache_creation_tokens bigint NOT NULL DEFAULT 0,
    total_tokens bigint NOT NULL DEFAULT 0,
    duration_ms bigint NOT NULL DEFAULT 0,
    time_to_first_token_ms bigint NOT NULL DEFAULT 0,
    success_count bigint NOT NULL DEFAULT 1,
    error_count bigint NOT NULL DEFAULT 0,
    projected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, source_key)
);

CREATE TABLE IF NOT EXISTS fact_tool_call (
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    source_key text NOT NULL,
    session_id uuid,
    turn_id text,
    user_id uuid,
    principal_id uuid,
    agent_id uuid,
    agent_name_snapshot text,
    harness_id uuid,
    harness_name_snapshot text,
    app_id uuid,
    blueprint_id text,
    created_at timestamptz NOT NULL,
    time_bucket_day date NOT NULL,
    tool_call_id text,
    tool_name text,
    tool_display_name_snapshot text,
    tool_status text,
    capability_id text,
    capability_name_snapshot text,
    call_count bigint NOT NULL DEFAULT 1,
    success_count bigint NOT NULL DEFAULT 0,
    error_count bigint NOT NULL DEFAULT 0,
    timeout_count bigint NOT NULL DEFAULT 0,
    cancelled_count bigint NOT NULL DEFAULT 0,
    duration_ms bigint NOT NULL DEFAULT 0,
    projected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, source_key)
);

CREATE TABLE IF NOT EXISTS fact_turn (
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    source_key text NOT NULL,
    session_id uuid,
    turn_id text,
    user_id uuid,
    principal_id uuid,
    agent_id uuid,
    agent_name_snapshot text,
    harness_id uuid,
    harness_name_snapshot text,
    app_id uuid,
    blueprint_id text,
    created_at timestamptz NOT NULL,
    time_bucket_day date NOT NULL,
    turn_status text,
    turn_count bigint NOT NULL DEFAULT 1,
    duration_ms bigint NOT NULL DEFAULT 0,
    iterations bigint NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cache_read_tokens bigint NOT NULL DEFAULT 0,
    cache_creation_tokens bigint NOT NULL DEFAULT 0,
    total_tokens bigint NOT NULL DEFAULT 0,
    tool_call_count bigint NOT NULL DEFAULT 0,
    success_count bigint NOT NULL DEFAULT 0,
    error_count bigint NOT NULL DEFAULT 0,
    projected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, source_key)
);

CREATE TABLE IF NOT EXISTS fact_session (
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    source_key text NOT NULL,
    session_id uuid,
    user_id uuid,
    principal_id uuid,
    agent_id uuid,
    agent_name_snapshot text,
    harness_id uuid,
    harness_name_snapshot text,
    app_id uuid,
    blueprint_id text,
    created_at timestamptz NOT NULL,
    time_bucket_day date NOT NULL,
    session_status text,
    started_at timestamptz,
    finished_at timestamptz,
    last_active_at timestamptz,
    session_count bigint NOT NULL DEFAULT 1,
    duration_ms bigint NOT NULL DEFAULT 0,
    turn_count bigint NOT NULL DEFAULT 0,
    tool_call_count bigint NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cache_read_tokens bigint NOT NULL DEFAULT 0,
    cache_creation_tokens bigint NOT NULL DEFAULT 0,
    total_tokens bigint NOT NULL DEFAULT 0,
    projected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, source_key)
);

CREATE TABLE IF NOT EXISTS fact_budget_posting (
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    source_key text NOT NULL,
    session_id uuid,
    user_id uuid,
    principal_id uuid,
    agent_id uuid,
    agent_name_snapshot text,
    harness_id uuid,
    harness_name_snapshot text,
    app_id uuid,
    blueprint_id text,
    created_at timestamptz NOT NULL,
    time_bucket_day date NOT NULL,
    budget_id uuid,
    budget_subject_type text,
    budget_subject_id text,
    currency text,
    meter_source text,
    ref_type text,
    amount double precision NOT NULL DEFAULT 0,
    debit_count bigint NOT NULL DEFAULT 0,
    credit_count bigint NOT NULL DEFAULT 0,
    projected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, source_key)
);

CREATE TABLE IF NOT EXISTS fact_capability_usage (
    org_id bigint NOT NULL REFERENCES organizations (org_id),
    source_key text NOT NULL,
    session_id uuid,
    turn_id text,
    user_id uuid,
    principal_id uuid,
    agent_id uuid,
    agent_name_snapshot text,
    harness_id uuid,
    harness_name_snapshot text,
    app_id uuid,
    blueprint_id text,
    created_at timestamptz NOT NULL,
    time_bucket_day date NOT NULL,
    capability_id text,
    capability_name_snapshot text,
    capability_usage_kind text
        CHECK (capability_usage_kind IN ('configured', 'resolved', 'exposed', 'invoked', 'effect_ran')),
    tool_name text,
    usage_count bigint NOT NULL DEFAULT 1,
    duration_ms bigint NOT NULL DEFAULT 0,
    projected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, source_key)
);
