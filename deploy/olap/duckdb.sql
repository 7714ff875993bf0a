-- The tables that load.py keeps in a DuckDB database.
-- Written by `make schemas`; change deploy/olap/ddl.py. How to use it: README.md.

CREATE TABLE IF NOT EXISTS changelog_offsets (
    topic VARCHAR,
    partition INTEGER,
    next_offset BIGINT NOT NULL,
    PRIMARY KEY (topic, partition)
);

CREATE TABLE IF NOT EXISTS llm_generations_versions (
    org_id BIGINT NOT NULL,
    source_key VARCHAR NOT NULL,
    session_id UUID,
    user_id UUID,
    principal_id UUID,
    agent_id UUID,
    agent_name_snapshot VARCHAR,
    harness_id UUID,
    harness_name_snapshot VARCHAR,
    app_id UUID,
    blueprint_id VARCHAR,
    created_at TIMESTAMPTZ,
    time_bucket_day DATE,
    projected_at TIMESTAMPTZ NOT NULL,
    turn_id VARCHAR,
    model VARCHAR,
    provider VARCHAR,
    finish_reason VARCHAR,
    input_tokens BIGINT,
    output_tokens BIGINT,
    cache_read_tokens BIGINT,
    cache_creation_tokens BIGINT,
    total_tokens BIGINT,
    duration_ms BIGINT,
    time_to_first_token_ms BIGINT,
    success_count BIGINT,
    error_count BIGINT,
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (org_id, source_key),
    CHECK (
        removed
        OR (org_id IS NOT NULL
            AND source_key IS NOT NULL
            AND created_at IS NOT NULL
            AND time_bucket_day IS NOT NULL
            AND projected_at IS NOT NULL
            AND input_tokens IS NOT NULL
            AND output_tokens IS NOT NULL
            AND cache_read_tokens IS NOT NULL
            AND cache_creation_tokens IS NOT NULL
            AND total_tokens IS NOT NULL
            AND duration_ms IS NOT NULL
            AND time_to_first_token_ms IS NOT NULL
            AND success_count IS NOT NULL
            AND error_count IS NOT NULL)
    )
);

CREATE OR REPLACE VIEW llm_generations AS
SELECT
    org_id,
    source_key,
    session_id,
    user_id,
    principal_id,
    agent_id,
    agent_name_snapshot,
    harness_id,
    harness_name_snapshot,
    app_id,
    blueprint_id,
    created_at,
    time_bucket_day,
    projected_at,
    turn_id,
    model,
    provider,
    finish_reason,
    input_tokens,
    output_tokens,
    cache_read_tokens,
    cache_creation_tokens,
    total_tokens,
    duration_ms,
    time_to_first_token_ms,
    success_count,
    error_count
FROM llm_generations_versions
WHERE NOT removed;

CREATE TABLE IF NOT EXISTS tool_calls_versions (
    org_id BIGINT NOT NULL,
    source_key VARCHAR NOT NULL,
    session_id UUID,
    user_id UUID,
    principal_id UUID,
    agent_id UUID,
    agent_name_snapshot VARCHAR,
    harness_id UUID,
    harness_name_snapshot VARCHAR,
    app_id UUID,
    blueprint_id VARCHAR,
    created_at TIMESTAMPTZ,
    time_bucket_day DATE,
    projected_at TIMESTAMPTZ NOT NULL,
    turn_id VARCHAR,
    tool_call_id VARCHAR,
    tool_name VARCHAR,
    tool_display_name_snapshot VARCHAR,
    tool_status VARCHAR,
    capability_id VARCHAR,
    capability_name_snapshot VARCHAR,
    call_count BIGINT,
    success_count BIGINT,
    error_count BIGINT,
    timeout_count BIGINT,
    cancelled_count BIGINT,
    duration_ms BIGINT,
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (org_id, source_key),
    CHECK (
        removed
        OR (org_id IS NOT NULL
            AND source_key IS NOT NULL
            AND created_at IS NOT NULL
            AND time_bucket_day IS NOT NULL
            AND projected_at IS NOT NULL
            AND call_count IS NOT NULL
            AND success_count IS NOT NULL
            AND error_count IS NOT NULL
            AND timeout_count IS NOT NULL
            AND cancelled_count IS NOT NULL
            AND duration_ms IS NOT NULL)
    )
);

CREATE OR REPLACE VIEW tool_calls AS
SELECT
    org_id,
    source_key,
    session_id,
    user_id,
    principal_id,
    agent_id,
    agent_name_snapshot,
    harness_id,
    harness_name_snapshot,
    app_id,
    blueprint_id,
    created_at,
    time_bucket_day,
    projected_at,
    turn_id,
    tool_call_id,
    tool_name,
    tool_display_name_snapshot,
    tool_status,
    capability_id,
    capability_name_snapshot,
    call_count,
    success_count,
    error_count,
    timeout_count,
    cancelled_count,
    duration_ms
FROM tool_calls_versions
WHERE NOT removed;

CREATE TABLE IF NOT EXISTS turns_versions (
    org_id BIGINT NOT NULL,
    source_key VARCHAR NOT NULL,
    session_id UUID,
    user_id UUID,
    principal_id UUID,
    agent_id UUID,
    agent_name_snapshot VARCHAR,
    harness_id UUID,
    harness_name_snapshot VARCHAR,
    app_id UUID,
    blueprint_id VARCHAR,
    created_at TIMESTAMPTZ,
    time_bucket_day DATE,
    projected_at TIMESTAMPTZ NOT NULL,
    turn_id VARCHAR,
    turn_status VARCHAR,
    turn_count BIGINT,
    duration_ms BIGINT,
    iterations BIGINT,
    input_tokens BIGINT,
    output_tokens BIGINT,
    cache_read_tokens BIGINT,
    cache_creation_tokens BIGINT,
    total_tokens BIGINT,
    tool_call_count BIGINT,
    success_count BIGINT,
    error_count BIGINT,
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (org_id, source_key),
    CHECK (
        removed
        OR (org_id IS NOT NULL
            AND source_key IS NOT NULL
            AND created_at IS NOT NULL
            AND time_bucket_day IS NOT NULL
            AND projected_at IS NOT NULL
            AND turn_count IS NOT NULL
            AND duration_ms IS NOT NULL
            AND iterations IS NOT NULL
            AND input_tokens IS NOT NULL
            AND output_tokens IS NOT NULL
            AND cache_read_tokens IS NOT NULL
            AND cache_creation_tokens IS NOT NULL
            AND total_tokens IS NOT NULL
            AND tool_call_count IS NOT NULL
            AND success_count IS NOT NULL
            AND error_count IS NOT NULL)
    )
);

CREATE OR REPLACE VIEW turns AS
SELECT
    org_id,
    source_key,
    session_id,
    user_id,
    principal_id,
    agent_id,
    agent_name_snapshot,
    harness_id,
    harness_name_snapshot,
    app_id,
    blueprint_id,
    created_at,
    time_bucket_day,
    projected_at,
    turn_id,
    turn_status,
    turn_count,
    duration_ms,
    iterations,
    input_tokens,
    output_tokens,
    cache_read_tokens,
    cache_creation_tokens,
    total_tokens,
    tool_call_count,
    success_count,
    error_count
FROM turns_versions
WHERE NOT removed;

CREATE TABLE IF NOT EXISTS sessions_versions (
    org_id BIGINT NOT NULL,
    source_key VARCHAR NOT NULL,
    session_id UUID,
    user_id UUID,
    principal_id UUID,
    agent_id UUID,
    agent_name_snapshot VARCHAR,
    harness_id UUID,
    harness_name_snapshot VARCHAR,
    app_id UUID,
    blueprint_id VARCHAR,
    created_at TIMESTAMPTZ,
    time_bucket_day DATE,
    projected_at TIMESTAMPTZ NOT NULL,
    session_status VARCHAR,
    started_at TIMESTAMPTZ,
    finished_at TIMESTAMPTZ,
    last_active_at TIMESTAMPTZ,
    session_count BIGINT,
    duration_ms BIGINT,
    turn_count BIGINT,
    tool_call_count BIGINT,
    input_tokens BIGINT,
    output_tokens BIGINT,
    cache_read_tokens BIGINT,
    cache_creation_tokens BIGINT,
    total_tokens BIGINT,
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (org_id, source_key),
    CHECK (
        removed
        OR (org_id IS NOT NULL
            AND source_key IS NOT NULL
            AND created_at IS NOT NULL
            AND time_bucket_day IS NOT NULL
            AND projected_at IS NOT NULL
            AND session_count IS NOT NULL
            AND duration_ms IS NOT NULL
            AND turn_count IS NOT NULL
            AND tool_call_count IS NOT NULL
            AND input_tokens IS NOT NULL
            AND output_tokens IS NOT NULL
            AND cache_read_tokens IS NOT NULL
            AND cache_creation_tokens IS NOT NULL
            AND total_tokens IS NOT NULL)
    )
);

CREATE OR REPLACE VIEW sessions AS
SELECT
    org_id,
    source_key,
    session_id,
    user_id,
    principal_id,
    agent_id,
    agent_name_snapshot,
    harness_id,
    harness_name_snapshot,
    app_id,
    blueprint_id,
    created_at,
    time_bucket_day,
    projected_at,
    session_status,
    started_at,
    finished_at,
    last_active_at,
    session_count,
    duration_ms,
    turn_count,
    tool_call_count,
    input_tokens,
    output_tokens,
    cache_read_tokens,
    cache_creation_tokens,
    total_tokens
FROM sessions_versions
WHERE NOT removed;

CREATE TABLE IF NOT EXISTS budget_postings_versions (
    org_id BIGINT NOT NULL,
    source_key VARCHAR NOT NULL,
    session_id UUID,
    user_id UUID,
    principal_id UUID,
    agent_id UUID,
    agent_name_snapshot VARCHAR,
    harness_id UUID,
    harness_name_snapshot VARCHAR,
    app_id UUID,
    blueprint_id VARCHAR,
    created_at TIMESTAMPTZ,
    time_bucket_day DATE,
    projected_at TIMESTAMPTZ NOT NULL,
    budget_id UUID,
    budget_subject_type VARCHAR,
    budget_subject_id VARCHAR,
    currency VARCHAR,
    meter_source VARCHAR,
    ref_type VARCHAR,
    amount DOUBLE,
    debit_count BIGINT,
    credit_count BIGINT,
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (org_id, source_key),
    CHECK (
        removed
        OR (org_id IS NOT NULL
            AND source_key IS NOT NULL
            AND created_at IS NOT NULL
            AND time_bucket_day IS NOT NULL
            AND projected_at IS NOT NULL
            AND amount IS NOT NULL
            AND debit_count IS NOT NULL
            AND credit_count IS NOT NULL)
    )
);

CREATE OR REPLACE VIEW budget_postings AS
SELECT
    org_id,
    source_key,
    session_id,
    user_id,
    principal_id,
    agent_id,
    agent_name_snapshot,
    harness_id,
    harness_name_snapshot,
    app_id,
    blueprint_id,
    created_at,
    time_bucket_day,
    projected_at,
    budget_id,
    budget_subject_type,
    budget_subject_id,
    currency,
    meter_source,
    ref_type,
    amount,
    debit_count,
    credit_count
FROM budget_postings_versions
WHERE NOT removed;

CREATE TABLE IF NOT EXISTS capability_usage_versions (
    org_id BIGINT NOT NULL,
    source_key VARCHAR NOT NULL,
    session_id UUID,
    user_id UUID,
    principal_id UUID,
    agent_id UUID,
    agent_name_snapshot VARCHAR,
    harness_id UUID,
    harness_name_snapshot VARCHAR,
    app_id UUID,
    blueprint_id VARCHAR,
    created_at TIMESTAMPTZ,
    time_bucket_day DATE,
    projected_at TIMESTAMPTZ NOT NULL,
    turn_id VARCHAR,
    capability_id VARCHAR,
    capability_name_snapshot VARCHAR,
    capability_usage_kind VARCHAR,
    tool_name VARCHAR,
    usage_count BIGINT,
    duration_ms BIGINT,
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (org_id, source_key),
    CHECK (
        removed
        OR (org_id IS NOT NULL
            AND source_key IS NOT NULL
            AND created_at IS NOT NULL
            AND time_bucket_day IS NOT NULL
            AND projected_at IS NOT NULL
            AND usage_count IS NOT NULL
            AND duration_ms IS NOT NULL)
    )
);

CREATE OR REPLACE VIEW capability_usage AS
SELECT
    org_id,
    source_key,
    session_id,
    user_id,
    principal_id,
    agent_id,
    agent_name_snapshot,
    harness_id,
    harness_name_snapshot,
    app_id,
    blueprint_id,
    created_at,
    time_bucket_day,
    projected_at,
    turn_id,
    capability_id,
    capability_name_snapshot,
    capability_usage_kind,
    tool_name,
    usage_count,
    duration_ms
FROM capability_usage_versions
WHERE NOT removed;
