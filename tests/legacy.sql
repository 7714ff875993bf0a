-- The outbox and the facts as an older program made them: the contract's names and values, but other names of indexes
-- and constraints, another order of columns, varchar in places, a column of its own, triggers, and rows.
-- Needs the canonical tables (sources.sql).

INSERT INTO organizations (org_id, public_id, name) VALUES (1, 'org_00000000000000000000000000000001', 'Org 1');

CREATE TABLE reporting_outbox (
    id uuid NOT NULL DEFAULT platform_uuid_v7(),
    org_id bigint NOT NULL,
    source_type varchar NOT NULL,
    source_id text NOT NULL,
    source_version text NOT NULL DEFAULT '',
    reason varchar NOT NULL,
    status varchar NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    last_error text,
    claimed_at timestamptz,
    claimed_by text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT outbox_pk PRIMARY KEY (id),
    CONSTRAINT outbox_org FOREIGN KEY (org_id) REFERENCES organizations (org_id),
    CONSTRAINT outbox_status CHECK (status IN ('pending', 'processing', 'completed', 'failed'))
);
CREATE UNIQUE INDEX outbox_work ON reporting_outbox (org_id, source_type, source_id, source_version, reason);
CREATE INDEX idx_reporting_outbox_due ON reporting_outbox (status, next_attempt_at, org_id, created_at);
CREATE INDEX idx_reporting_outbox_org ON reporting_outbox (org_id, status, next_attempt_at);

CREATE FUNCTION touch_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
CREATE TRIGGER touch_outbox BEFORE UPDATE ON reporting_outbox FOR EACH ROW EXECUTE FUNCTION touch_outbox();

-- What every fact has; copied into each table and dropped at the end.
CREATE TABLE legacy_fact (
    source_key varchar NOT NULL,
    org_id bigint NOT NULL,
    session_id uuid,
    user_id uuid,
    principal_id uuid,
    agent_id uuid,
    agent_name_snapshot varchar,
    harness_id uuid,
    harness_name_snapshot varchar,
    app_id uuid,
    blueprint_id text,
    duration_ms bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    time_bucket_day date NOT NULL,
    projected_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE fact_llm_generation (
    LIKE legacy_fact INCLUDING DEFAULTS,
    turn_id text, model varchar, provider varchar, finish_reason varchar,
    input_tokens bigint NOT NULL, output_tokens bigint NOT NULL, cache_read_tokens bigint NOT NULL,
    cache_creation_tokens bigint NOT NULL, total_tokens bigint NOT NULL,
    time_to_first_token_ms bigint, success_count bigint NOT NULL, error_count bigint NOT NULL,
    PRIMARY KEY (org_id, source_key)
);
CREATE TABLE fact_tool_call (
    LIKE legacy_fact INCLUDING DEFAULTS,
    turn_id text, tool_call_id text, tool_name varchar, tool_display_name_snapshot varchar, tool_status varchar,
    capability_id varchar, capability_name_snapshot varchar, call_count bigint NOT NULL, success_count bigint NOT NULL,
    error_count bigint NOT NULL, timeout_count bigint NOT NULL, cancelled_count bigint NOT NULL,
    CONSTRAINT tool_call_pk PRIMARY KEY (source_key, org_id)
);
CREATE TABLE fact_turn (
    LIKE legacy_fact INCLUDING DEFAULTS,
    turn_id text, turn_status varchar, turn_count bigint NOT NULL, iterations bigint NOT NULL,
    input_tokens bigint NOT NULL, output_tokens bigint NOT NULL, cache_read_tokens bigint NOT NULL,
    cache_creation_tokens bigint NOT NULL, total_tokens bigint NOT NULL, tool_call_count bigint NOT NULL,
    success_count bigint NOT NULL, error_count bigint NOT NULL,
    note text,
    PRIMARY KEY (org_id, source_key)
);
CREATE TABLE fact_session (
    LIKE legacy_fact INCLUDING DEFAULTS,
    session_status varchar, started_at timestamptz, finished_at timestamptz, last_active_at timestamptz,
    session_count bigint NOT NULL, turn_count bigint NOT NULL, tool_call_count bigint NOT NULL,
    input_tokens bigint NOT NULL, output_tokens bigint NOT NULL, cache_read_tokens bigint NOT NULL,
    cache_creation_tokens bigint NOT NULL, total_tokens bigint NOT NULL,
    PRIMARY KEY (org_id, source_key)
);
CREATE TABLE fact_budget_posting (
    LIKE legacy_fact INCLUDING DEFAULTS,
    budget_id uuid, budget_subject_type varchar, budget_subject_id varchar, currency varchar, meter_source varchar,
    ref_type varchar, amount double precision NOT NULL, debit_count bigint NOT NULL, credit_count bigint NOT NULL,
    PRIMARY KEY (org_id, source_key)
);
ALTER TABLE fact_budget_posting DROP COLUMN duration_ms;
CREATE TABLE fact_capability_usage (
    LIKE legacy_fact INCLUDING DEFAULTS,
    turn_id text, capability_id varchar, capability_name_snapshot varchar,
    capability_usage_kind varchar CONSTRAINT usage_kind
        CHECK (capability_usage_kind IN ('configured', 'resolved', 'exposed', 'invoked', 'effect_ran')),
    tool_name varchar, usage_count bigint NOT NULL
);
CREATE UNIQUE INDEX capability_usage_key ON fact_capability_usage (org_id, source_key);
DROP TABLE legacy_fact;

-- The readers' indexes, under other names.
CREATE INDEX idx_fact_generation_time ON fact_llm_generation (org_id, created_at);
CREATE INDEX idx_fact_generation_model ON fact_llm_generation (org_id, model, provider, created_at);
CREATE INDEX idx_fact_tool_time ON fact_tool_call (org_id, created_at);
CREATE INDEX idx_fact_tool_name ON fact_tool_call (org_id, tool_name, tool_status, created_at);
CREATE INDEX idx_fact_turn_time ON fact_turn (org_id, created_at);
CREATE INDEX idx_fact_session_day ON fact_session (org_id, time_bucket_day);
CREATE INDEX idx_fact_posting_budget ON fact_budget_posting (org_id, budget_id, created_at);
CREATE INDEX idx_fact_usage_capability
    ON fact_capability_usage (org_id, capability_id, capability_usage_kind, created_at);

-- A session with a tool call and a generation, projected by the older program; one row it has leased, one that failed.
INSERT INTO sessions (id, org_id, owner_principal_id, capabilities)
VALUES ('00000000-0000-7000-8000-000000000001', 1, '00000000-0000-7000-8000-0000000000ff', '["web"]');
INSERT INTO events (id, session_id, sequence, event_type, data) VALUES (
    '00000000-0000-7000-8000-000000000002', '00000000-0000-7000-8000-000000000001', 1, 'tool.completed',
    '{"tool_name": "search", "success": true, "capability_id": "web"}'
);
INSERT INTO llm_generations (id, org_id, session_id, input_tokens)
VALUES ('00000000-0000-7000-8000-000000000003', 1, '00000000-0000-7000-8000-000000000001', 5);
INSERT INTO usage_ledger (id, org_id, currency, amount, meter_source)
VALUES ('00000000-0000-7000-8000-000000000004', 1, 'USD', 2, 'llm');
INSERT INTO reporting_outbox (org_id, source_type, source_id, reason, status, attempts, last_error, claimed_at) VALUES
    (1, 'session', '00000000-0000-7000-8000-000000000001', 'session_snapshot', 'pending', 0, NULL, NULL),
    (1, 'event', '00000000-0000-7000-8000-000000000002', 'event_projection', 'failed', 2, 'boom', NULL),
    (1, 'llm_generation', '00000000-0000-7000-8000-000000000003', 'llm_generation_projection', 'completed', 1, NULL, NULL),
    (1, 'usage_ledger', '00000000-0000-7000-8000-000000000004', 'budget_posting_projection', 'processing', 1, NULL,
        now() - interval '1 hour');
INSERT INTO fact_tool_call (
    org_id, source_key, created_at, time_bucket_day, tool_name, call_count, success_count, error_count, timeout_count,
    cancelled_count
)
VALUES (1, 'event:00000000-0000-7000-8000-000000000002', now(), current_date, 'old name', 1, 0, 0, 0, 0);
INSERT INTO fact_capability_usage (
    org_id, source_key, session_id, created_at, time_bucket_day, capability_id, capability_usage_kind, usage_count
)
VALUES (
    1, 'session:00000000-0000-7000-8000-000000000001:configured:session:gone', '00000000-0000-7000-8000-000000000001',
    now(), current_date, 'gone', 'configured', 1
);
