-- The reporting schema as `projector migrate` leaves it on an empty database: the whole of it, to be read.
--
-- Nothing runs this file in production; the migrations beside it do the work, and a test compares what they build
-- with what this file builds. Contract: outbox.md and facts.md.

CREATE FUNCTION reporting_uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
    AS 'SELECT uuidv7()'; -- below PostgreSQL 18: a random UUID whose first 48 bits are the clock's milliseconds

-- The count that a JSON scalar's text stands for: digits alone that fit bigint, else the default.
CREATE FUNCTION reporting_count(value text, default_value bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT CASE
            WHEN value !~ '^[0-9]+$' THEN default_value
            WHEN length(ltrim(value, '0')) < 19 THEN ('0' || ltrim(value, '0'))::bigint
            WHEN length(ltrim(value, '0')) = 19 AND ltrim(value, '0') COLLATE "C" <= '9223372036854775807'
                THEN ltrim(value, '0')::bigint
            ELSE default_value
        END
    $$;

-- What makes a text fit an index: its first 200 characters and its SHA-256.
CREATE FUNCTION reporting_shorten(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT left(value, 200) || '#' || encode(sha256(convert_to(value, 'UTF8')), 'hex') $$;

-- Text that fits an index: longer than 1,000 bytes, it is shortened. A text that has the form of a shortened one already is
-- shortened too, so that no two texts become the same.
-- What is rarely needed stands apart, so that the planner expands the rest in place.
CREATE FUNCTION reporting_fit(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT CASE
            WHEN octet_length(value) <= 1000 AND NOT (length(value) = 265 AND substr(value, 201, 1) = '#') THEN value
            ELSE reporting_shorten(value)
        END
    $$;

-- Whether a source id is a UUID, with or without hyphens but not in braces.
CREATE FUNCTION reporting_is_uuid(value text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT pg_input_is_valid(value, 'uuid') AND value NOT LIKE '{%' $$; -- below PostgreSQL 16: a pattern

-- A JSON scalar's text; null for what is absent, null, an object or an array.
CREATE FUNCTION reporting_text(document jsonb, key text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT CASE
            WHEN jsonb_typeof(document -> key) IN ('string', 'number', 'boolean') THEN document ->> key
        END
    $$;

-- A capability's id: a non-empty JSON string, else null.
CREATE FUNCTION reporting_capability_id(document jsonb, key text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT CASE WHEN jsonb_typeof(document -> key) = 'string' THEN NULLIF(document ->> key, '') END
    $$;

-- A sum as bigint: what would not fit takes the nearest bound.
CREATE FUNCTION reporting_total(sum numeric) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT LEAST(GREATEST(sum, -9223372036854775808), 9223372036854775807)::bigint
    $$;

CREATE TABLE reporting_outbox (
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

CREATE TABLE fact_llm_generation (
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

CREATE TABLE fact_tool_call (
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

CREATE TABLE fact_turn (
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

CREATE TABLE fact_session (
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

CREATE TABLE fact_budget_posting (
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

CREATE TABLE fact_capability_usage (
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

-- What was applied to this database, and when.
CREATE TABLE reporting_projector_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- One row for each backfill that several calls make: where its next call goes on. Rows that nobody has used for an hour
-- are forgotten.
CREATE TABLE reporting_backfill_progress (
    scope text PRIMARY KEY,
    position jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- The audit: one row for each operator action.
CREATE TABLE reporting_actions (
    id uuid PRIMARY KEY DEFAULT reporting_uuid_v7(),
    operation text NOT NULL,
    actor text NOT NULL,
    org_id bigint,
    parameters jsonb NOT NULL,
    rows bigint NOT NULL DEFAULT 0,
    outcome text NOT NULL DEFAULT 'running' CHECK (outcome IN ('running', 'done', 'partial', 'refused', 'failed')),
    request_id text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);

-- Which facts were changed and are not yet published to Kafka: one row for each statement that changed some, up to 1,000 of
-- them. Nothing is written here before `projector changelog enable` has put triggers on the fact tables.
CREATE TABLE reporting_fact_changes (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset text NOT NULL,
    org_ids bigint[] NOT NULL,
    source_keys text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One row: who publishes, and the last version that was given to a message.
CREATE TABLE reporting_changelog_publisher (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder uuid,
    renewed_at timestamptz NOT NULL DEFAULT '-infinity',
    version bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- What the triggers call, with the dataset as their argument. Whoever writes facts needs no right on the table of changes.
CREATE FUNCTION reporting_capture_fact_changes() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path FROM CURRENT
    AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format(
            'INSERT INTO reporting_fact_changes (dataset, org_ids, source_keys)
            SELECT $1, array_agg(org_id), array_agg(source_key)
            FROM (SELECT org_id, source_key, (row_number() OVER () - 1) / 1000 AS slice FROM %I.%I) AS numbered
            GROUP BY slice',
            TG_TABLE_SCHEMA, TG_TABLE_NAME
        ) USING TG_ARGV[0];
    ELSIF TG_LEVEL = 'ROW' THEN -- a key was changed: no statement's new rows tell the old one
        INSERT INTO reporting_fact_changes (dataset, org_ids, source_keys)
        VALUES (TG_ARGV[0], ARRAY[OLD.org_id], ARRAY[OLD.source_key]);
    ELSE
        INSERT INTO reporting_fact_changes (dataset, org_ids, source_keys)
        SELECT TG_ARGV[0], array_agg(org_id), array_agg(source_key)
        FROM (SELECT org_id, source_key, (row_number() OVER () - 1) / 1000 AS slice FROM changed) AS numbered
        GROUP BY slice;
    END IF;
    RETURN NULL;
END
$$;

-- The actions on one org, latest first.
CREATE INDEX reporting_actions_by_org ON reporting_actions USING btree (org_id, id);

-- The due rows of each org, oldest first: the claim of a backlog, org by org. Dead letters are never due and not in it.
CREATE INDEX reporting_outbox_due_by_org ON reporting_outbox USING btree (org_id, next_attempt_at, id) WHERE ((status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (next_attempt_at < 'infinity'::timestamp with time zone));

-- The due rows of all orgs, in the order in which they became due: the claim of fresh rows. Attempts are never below 0:
-- saying so keeps statements that name an org, and say nothing of attempts, from reading it instead of the one by org.
CREATE INDEX reporting_outbox_due ON reporting_outbox USING btree (next_attempt_at, id) WHERE ((status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (next_attempt_at < 'infinity'::timestamp with time zone) AND (attempts >= 0));

-- The failed rows, latest first: status, requeue.
CREATE INDEX reporting_outbox_failed ON reporting_outbox USING btree (updated_at, id) WHERE (status = 'failed'::text);

-- The failed rows of one org, latest first: what operators list and requeue.
CREATE INDEX reporting_outbox_failed_by_org ON reporting_outbox USING btree (org_id, updated_at, id) WHERE (status = 'failed'::text);

-- The leases of other programs: released when they are too old.
CREATE INDEX reporting_outbox_leased ON reporting_outbox USING btree (claimed_at) WHERE (status = 'processing'::text);

-- fact_llm_generation: what readers rely on (facts.md), and freshness by org.
CREATE INDEX fact_llm_generation_created ON fact_llm_generation USING btree (org_id, created_at);
CREATE INDEX fact_llm_generation_day ON fact_llm_generation USING btree (org_id, time_bucket_day);
CREATE INDEX fact_llm_generation_model ON fact_llm_generation USING btree (org_id, model, provider, created_at);
CREATE INDEX fact_llm_generation_projected ON fact_llm_generation USING btree (org_id, projected_at);

-- fact_tool_call: what readers rely on (facts.md), and freshness by org.
CREATE INDEX fact_tool_call_created ON fact_tool_call USING btree (org_id, created_at);
CREATE INDEX fact_tool_call_day ON fact_tool_call USING btree (org_id, time_bucket_day);
CREATE INDEX fact_tool_call_tool ON fact_tool_call USING btree (org_id, tool_name, tool_status, created_at);
CREATE INDEX fact_tool_call_projected ON fact_tool_call USING btree (org_id, projected_at);

-- fact_turn: what readers rely on (facts.md), and freshness by org.
CREATE INDEX fact_turn_created ON fact_turn USING btree (org_id, created_at);
CREATE INDEX fact_turn_day ON fact_turn USING btree (org_id, time_bucket_day);
CREATE INDEX fact_turn_status ON fact_turn USING btree (org_id, turn_status, created_at);
CREATE INDEX fact_turn_projected ON fact_turn USING btree (org_id, projected_at);

-- fact_session: what readers rely on (facts.md), and freshness by org.
CREATE INDEX fact_session_created ON fact_session USING btree (org_id, created_at);
CREATE INDEX fact_session_day ON fact_session USING btree (org_id, time_bucket_day);
CREATE INDEX fact_session_status ON fact_session USING btree (org_id, session_status, created_at);
CREATE INDEX fact_session_projected ON fact_session USING btree (org_id, projected_at);

-- fact_budget_posting: what readers rely on (facts.md), and freshness by org.
CREATE INDEX fact_budget_posting_created ON fact_budget_posting USING btree (org_id, created_at);
CREATE INDEX fact_budget_posting_day ON fact_budget_posting USING btree (org_id, time_bucket_day);
CREATE INDEX fact_budget_posting_budget ON fact_budget_posting USING btree (org_id, budget_id, created_at);
CREATE INDEX fact_budget_posting_projected ON fact_budget_posting USING btree (org_id, projected_at);

-- fact_capability_usage: what readers rely on (facts.md), and freshness by org.
CREATE INDEX fact_capability_usage_created ON fact_capability_usage USING btree (org_id, created_at);
CREATE INDEX fact_capability_usage_day ON fact_capability_usage USING btree (org_id, time_bucket_day);
CREATE INDEX fact_capability_usage_capability ON fact_capability_usage USING btree (org_id, capability_id, capability_usage_kind, created_at);
CREATE INDEX fact_capability_usage_configured ON fact_capability_usage USING btree (org_id, session_id) WHERE (capability_usage_kind = 'configured'::text);

-- One source's facts by the prefix of their keys, whatever the database's collation.
CREATE INDEX fact_capability_usage_prefix ON fact_capability_usage USING btree (org_id, source_key text_pattern_ops);
CREATE INDEX fact_capability_usage_projected ON fact_capability_usage USING btree (org_id, projected_at);
