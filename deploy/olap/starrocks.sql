-- StarRocks reads the facts' changelog. Replace kafka:9092 and reporting.facts by yours.
-- Written by `make schemas`; change deploy/olap/ddl.py. How to use it: README.md.

CREATE DATABASE IF NOT EXISTS reporting;

CREATE TABLE IF NOT EXISTS reporting.llm_generations_versions (
    org_id BIGINT NOT NULL,
    source_key VARCHAR(1100) NOT NULL,
    session_id VARCHAR(36) NULL,
    user_id VARCHAR(36) NULL,
    principal_id VARCHAR(36) NULL,
    agent_id VARCHAR(36) NULL,
    agent_name_snapshot STRING NULL,
    harness_id VARCHAR(36) NULL,
    harness_name_snapshot STRING NULL,
    app_id VARCHAR(36) NULL,
    blueprint_id STRING NULL,
    created_at DATETIME NULL,
    time_bucket_day DATE NULL,
    projected_at DATETIME NULL,
    turn_id STRING NULL,
    model STRING NULL,
    provider STRING NULL,
    finish_reason STRING NULL,
    input_tokens BIGINT NULL,
    output_tokens BIGINT NULL,
    cache_read_tokens BIGINT NULL,
    cache_creation_tokens BIGINT NULL,
    total_tokens BIGINT NULL,
    duration_ms BIGINT NULL,
    time_to_first_token_ms BIGINT NULL,
    success_count BIGINT NULL,
    error_count BIGINT NULL,
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL
) PRIMARY KEY (org_id, source_key)
DISTRIBUTED BY HASH (org_id, source_key)
PROPERTIES ("enable_persistent_index" = "true");

CREATE VIEW IF NOT EXISTS reporting.llm_generations AS
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
FROM reporting.llm_generations_versions
WHERE NOT removed;

CREATE ROUTINE LOAD reporting.llm_generations_load ON llm_generations_versions
COLUMNS (
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
    created_at_text,
    time_bucket_day,
    projected_at_text,
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
    error_count,
    removed,
    version,
    created_at = CAST(regexp_replace(created_at_text, '(Z|[+-]00:00)$', '') AS DATETIME),
    projected_at = CAST(regexp_replace(projected_at_text, '(Z|[+-]00:00)$', '') AS DATETIME)
)
PROPERTIES (
    "format" = "json",
    "jsonpaths" = "[\"$.org_id\", \"$.source_key\", \"$.session_id\", \"$.user_id\", \"$.principal_id\", \"$.agent_id\", \"$.agent_name_snapshot\", \"$.harness_id\", \"$.harness_name_snapshot\", \"$.app_id\", \"$.blueprint_id\", \"$.created_at\", \"$.time_bucket_day\", \"$.projected_at\", \"$.turn_id\", \"$.model\", \"$.provider\", \"$.finish_reason\", \"$.input_tokens\", \"$.output_tokens\", \"$.cache_read_tokens\", \"$.cache_creation_tokens\", \"$.total_tokens\", \"$.duration_ms\", \"$.time_to_first_token_ms\", \"$.success_count\", \"$.error_count\", \"$.removed\", \"$.version\"]",
    "merge_condition" = "version",
    "max_filter_ratio" = "1"
)
FROM KAFKA (
    "kafka_broker_list" = "kafka:9092",
    "kafka_topic" = "reporting.facts.llm_generations",
    "property.group.id" = "starrocks-reporting",
    "property.kafka_default_offsets" = "OFFSET_BEGINNING"
);

CREATE TABLE IF NOT EXISTS reporting.tool_calls_versions (
    org_id BIGINT NOT NULL,
    source_key VARCHAR(1100) NOT NULL,
    session_id VARCHAR(36) NULL,
    user_id VARCHAR(36) NULL,
    principal_id VARCHAR(36) NULL,
    agent_id VARCHAR(36) NULL,
    agent_name_snapshot STRING NULL,
    harness_id VARCHAR(36) NULL,
    harness_name_snapshot STRING NULL,
    app_id VARCHAR(36) NULL,
    blueprint_id STRING NULL,
    created_at DATETIME NULL,
    time_bucket_day DATE NULL,
    projected_at DATETIME NULL,
    turn_id STRING NULL,
    tool_call_id STRING NULL,
    tool_name STRING NULL,
    tool_display_name_snapshot STRING NULL,
    tool_status STRING NULL,
    capability_id STRING NULL,
    capability_name_snapshot STRING NULL,
    call_count BIGINT NULL,
    success_count BIGINT NULL,
    error_count BIGINT NULL,
    timeout_count BIGINT NULL,
    cancelled_count BIGINT NULL,
    duration_ms BIGINT NULL,
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL
) PRIMARY KEY (org_id, source_key)
DISTRIBUTED BY HASH (org_id, source_key)
PROPERTIES ("enable_persistent_index" = "true");

CREATE VIEW IF NOT EXISTS reporting.tool_calls AS
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
FROM reporting.tool_calls_versions
WHERE NOT removed;

CREATE ROUTINE LOAD reporting.tool_calls_load ON tool_calls_versions
COLUMNS (
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
    created_at_text,
    time_bucket_day,
    projected_at_text,
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
    duration_ms,
    removed,
    version,
    created_at = CAST(regexp_replace(created_at_text, '(Z|[+-]00:00)$', '') AS DATETIME),
    projected_at = CAST(regexp_replace(projected_at_text, '(Z|[+-]00:00)$', '') AS DATETIME)
)
PROPERTIES (
    "format" = "json",
    "jsonpaths" = "[\"$.org_id\", \"$.source_key\", \"$.session_id\", \"$.user_id\", \"$.principal_id\", \"$.agent_id\", \"$.agent_name_snapshot\", \"$.harness_id\", \"$.harness_name_snapshot\", \"$.app_id\", \"$.blueprint_id\", \"$.created_at\", \"$.time_bucket_day\", \"$.projected_at\", \"$.turn_id\", \"$.tool_call_id\", \"$.tool_name\", \"$.tool_display_name_snapshot\", \"$.tool_status\", \"$.capability_id\", \"$.capability_name_snapshot\", \"$.call_count\", \"$.success_count\", \"$.error_count\", \"$.timeout_count\", \"$.cancelled_count\", \"$.duration_ms\", \"$.removed\", \"$.version\"]",
    "merge_condition" = "version",
    "max_filter_ratio" = "1"
)
FROM KAFKA (
    "kafka_broker_list" = "kafka:9092",
    "kafka_topic" = "reporting.facts.tool_calls",
    "property.group.id" = "starrocks-reporting",
    "property.kafka_default_offsets" = "OFFSET_BEGINNING"
);

CREATE TABLE IF NOT EXISTS reporting.turns_versions (
    org_id BIGINT NOT NULL,
    source_key VARCHAR(1100) NOT NULL,
    session_id VARCHAR(36) NULL,
    user_id VARCHAR(36) NULL,
    principal_id VARCHAR(36) NULL,
    agent_id VARCHAR(36) NULL,
    agent_name_snapshot STRING NULL,
    harness_id VARCHAR(36) NULL,
    harness_name_snapshot STRING NULL,
    app_id VARCHAR(36) NULL,
    blueprint_id STRING NULL,
    created_at DATETIME NULL,
    time_bucket_day DATE NULL,
    projected_at DATETIME NULL,
    turn_id STRING NULL,
    turn_status STRING NULL,
    turn_count BIGINT NULL,
    duration_ms BIGINT NULL,
    iterations BIGINT NULL,
    input_tokens BIGINT NULL,
    output_tokens BIGINT NULL,
    cache_read_tokens BIGINT NULL,
    cache_creation_tokens BIGINT NULL,
    total_tokens BIGINT NULL,
    tool_call_count BIGINT NULL,
    success_count BIGINT NULL,
    error_count BIGINT NULL,
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL
) PRIMARY KEY (org_id, source_key)
DISTRIBUTED BY HASH (org_id, source_key)
PROPERTIES ("enable_persistent_index" = "true");

CREATE VIEW IF NOT EXISTS reporting.turns AS
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
FROM reporting.turns_versions
WHERE NOT removed;

CREATE ROUTINE LOAD reporting.turns_load ON turns_versions
COLUMNS (
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
    created_at_text,
    time_bucket_day,
    projected_at_text,
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
    error_count,
    removed,
    version,
    created_at = CAST(regexp_replace(created_at_text, '(Z|[+-]00:00)$', '') AS DATETIME),
    projected_at = CAST(regexp_replace(projected_at_text, '(Z|[+-]00:00)$', '') AS DATETIME)
)
PROPERTIES (
    "format" = "json",
    "jsonpaths" = "[\"$.org_id\", \"$.source_key\", \"$.session_id\", \"$.user_id\", \"$.principal_id\", \"$.agent_id\", \"$.agent_name_snapshot\", \"$.harness_id\", \"$.harness_name_snapshot\", \"$.app_id\", \"$.blueprint_id\", \"$.created_at\", \"$.time_bucket_day\", \"$.projected_at\", \"$.turn_id\", \"$.turn_status\", \"$.turn_count\", \"$.duration_ms\", \"$.iterations\", \"$.input_tokens\", \"$.output_tokens\", \"$.cache_read_tokens\", \"$.cache_creation_tokens\", \"$.total_tokens\", \"$.tool_call_count\", \"$.success_count\", \"$.error_count\", \"$.removed\", \"$.version\"]",
    "merge_condition" = "version",
    "max_filter_ratio" = "1"
)
FROM KAFKA (
    "kafka_broker_list" = "kafka:9092",
    "kafka_topic" = "reporting.facts.turns",
    "property.group.id" = "starrocks-reporting",
    "property.kafka_default_offsets" = "OFFSET_BEGINNING"
);

CREATE TABLE IF NOT EXISTS reporting.sessions_versions (
    org_id BIGINT NOT NULL,
    source_key VARCHAR(1100) NOT NULL,
    session_id VARCHAR(36) NULL,
    user_id VARCHAR(36) NULL,
    principal_id VARCHAR(36) NULL,
    agent_id VARCHAR(36) NULL,
    agent_name_snapshot STRING NULL,
    harness_id VARCHAR(36) NULL,
    harness_name_snapshot STRING NULL,
    app_id VARCHAR(36) NULL,
    blueprint_id STRING NULL,
    created_at DATETIME NULL,
    time_bucket_day DATE NULL,
    projected_at DATETIME NULL,
    session_status STRING NULL,
    started_at DATETIME NULL,
    finished_at DATETIME NULL,
    last_active_at DATETIME NULL,
    session_count BIGINT NULL,
    duration_ms BIGINT NULL,
    turn_count BIGINT NULL,
    tool_call_count BIGINT NULL,
    input_tokens BIGINT NULL,
    output_tokens BIGINT NULL,
    cache_read_tokens BIGINT NULL,
    cache_creation_tokens BIGINT NULL,
    total_tokens BIGINT NULL,
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL
) PRIMARY KEY (org_id, source_key)
DISTRIBUTED BY HASH (org_id, source_key)
PROPERTIES ("enable_persistent_index" = "true");

CREATE VIEW IF NOT EXISTS reporting.sessions AS
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
FROM reporting.sessions_versions
WHERE NOT removed;

CREATE ROUTINE LOAD reporting.sessions_load ON sessions_versions
COLUMNS (
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
    created_at_text,
    time_bucket_day,
    projected_at_text,
    session_status,
    started_at_text,
    finished_at_text,
    last_active_at_text,
    session_count,
    duration_ms,
    turn_count,
    tool_call_count,
    input_tokens,
    output_tokens,
    cache_read_tokens,
    cache_creation_tokens,
    total_tokens,
    removed,
    version,
    created_at = CAST(regexp_replace(created_at_text, '(Z|[+-]00:00)$', '') AS DATETIME),
    projected_at = CAST(regexp_replace(projected_at_text, '(Z|[+-]00:00)$', '') AS DATETIME),
    started_at = CAST(regexp_replace(started_at_text, '(Z|[+-]00:00)$', '') AS DATETIME),
    finished_at = CAST(regexp_replace(finished_at_text, '(Z|[+-]00:00)$', '') AS DATETIME),
    last_active_at = CAST(regexp_replace(last_active_at_text, '(Z|[+-]00:00)$', '') AS DATETIME)
)
PROPERTIES (
    "format" = "json",
    "jsonpaths" = "[\"$.org_id\", \"$.source_key\", \"$.session_id\", \"$.user_id\", \"$.principal_id\", \"$.agent_id\", \"$.agent_name_snapshot\", \"$.harness_id\", \"$.harness_name_snapshot\", \"$.app_id\", \"$.blueprint_id\", \"$.created_at\", \"$.time_bucket_day\", \"$.projected_at\", \"$.session_status\", \"$.started_at\", \"$.finished_at\", \"$.last_active_at\", \"$.session_count\", \"$.duration_ms\", \"$.turn_count\", \"$.tool_call_count\", \"$.input_tokens\", \"$.output_tokens\", \"$.cache_read_tokens\", \"$.cache_creation_tokens\", \"$.total_tokens\", \"$.removed\", \"$.version\"]",
    "merge_condition" = "version",
    "max_filter_ratio" = "1"
)
FROM KAFKA (
    "kafka_broker_list" = "kafka:9092",
    "kafka_topic" = "reporting.facts.sessions",
    "property.group.id" = "starrocks-reporting",
    "property.kafka_default_offsets" = "OFFSET_BEGINNING"
);

CREATE TABLE IF NOT EXISTS reporting.budget_postings_versions (
    org_id BIGINT NOT NULL,
    source_key VARCHAR(1100) NOT NULL,
    session_id VARCHAR(36) NULL,
    user_id VARCHAR(36) NULL,
    principal_id VARCHAR(36) NULL,
    agent_id VARCHAR(36) NULL,
    agent_name_snapshot STRING NULL,
    harness_id VARCHAR(36) NULL,
    harness_name_snapshot STRING NULL,
    app_id VARCHAR(36) NULL,
    blueprint_id STRING NULL,
    created_at DATETIME NULL,
    time_bucket_day DATE NULL,
    projected_at DATETIME NULL,
    budget_id VARCHAR(36) NULL,
    budget_subject_type STRING NULL,
    budget_subject_id STRING NULL,
    currency STRING NULL,
    meter_source STRING NULL,
    ref_type STRING NULL,
    amount DOUBLE NULL,
    debit_count BIGINT NULL,
    credit_count BIGINT NULL,
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL
) PRIMARY KEY (org_id, source_key)
DISTRIBUTED BY HASH (org_id, source_key)
PROPERTIES ("enable_persistent_index" = "true");

CREATE VIEW IF NOT EXISTS reporting.budget_postings AS
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
FROM reporting.budget_postings_versions
WHERE NOT removed;

CREATE ROUTINE LOAD reporting.budget_postings_load ON budget_postings_versions
COLUMNS (
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
    created_at_text,
    time_bucket_day,
    projected_at_text,
    budget_id,
    budget_subject_type,
    budget_subject_id,
    currency,
    meter_source,
    ref_type,
    amount,
    debit_count,
    credit_count,
    removed,
    version,
    created_at = CAST(regexp_replace(created_at_text, '(Z|[+-]00:00)$', '') AS DATETIME),
    projected_at = CAST(regexp_replace(projected_at_text, '(Z|[+-]00:00)$', '') AS DATETIME)
)
PROPERTIES (
    "format" = "json",
    "jsonpaths" = "[\"$.org_id\", \"$.source_key\", \"$.session_id\", \"$.user_id\", \"$.principal_id\", \"$.agent_id\", \"$.agent_name_snapshot\", \"$.harness_id\", \"$.harness_name_snapshot\", \"$.app_id\", \"$.blueprint_id\", \"$.created_at\", \"$.time_bucket_day\", \"$.projected_at\", \"$.budget_id\", \"$.budget_subject_type\", \"$.budget_subject_id\", \"$.currency\", \"$.meter_source\", \"$.ref_type\", \"$.amount\", \"$.debit_count\", \"$.credit_count\", \"$.removed\", \"$.version\"]",
    "merge_condition" = "version",
    "max_filter_ratio" = "1"
)
FROM KAFKA (
    "kafka_broker_list" = "kafka:9092",
    "kafka_topic" = "reporting.facts.budget_postings",
    "property.group.id" = "starrocks-reporting",
    "property.kafka_default_offsets" = "OFFSET_BEGINNING"
);

CREATE TABLE IF NOT EXISTS reporting.capability_usage_versions (
    org_id BIGINT NOT NULL,
    source_key VARCHAR(1100) NOT NULL,
    session_id VARCHAR(36) NULL,
    user_id VARCHAR(36) NULL,
    principal_id VARCHAR(36) NULL,
    agent_id VARCHAR(36) NULL,
    agent_name_snapshot STRING NULL,
    harness_id VARCHAR(36) NULL,
    harness_name_snapshot STRING NULL,
    app_id VARCHAR(36) NULL,
    blueprint_id STRING NULL,
    created_at DATETIME NULL,
    time_bucket_day DATE NULL,
    projected_at DATETIME NULL,
    turn_id STRING NULL,
    capability_id STRING NULL,
    capability_name_snapshot STRING NULL,
    capability_usage_kind STRING NULL,
    tool_name STRING NULL,
    usage_count BIGINT NULL,
    duration_ms BIGINT NULL,
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL
) PRIMARY KEY (org_id, source_key)
DISTRIBUTED BY HASH (org_id, source_key)
PROPERTIES ("enable_persistent_index" = "true");

CREATE VIEW IF NOT EXISTS reporting.capability_usage AS
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
FROM reporting.capability_usage_versions
WHERE NOT removed;

CREATE ROUTINE LOAD reporting.capability_usage_load ON capability_usage_versions
COLUMNS (
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
    created_at_text,
    time_bucket_day,
    projected_at_text,
    turn_id,
    capability_id,
    capability_name_snapshot,
    capability_usage_kind,
    tool_name,
    usage_count,
    duration_ms,
    removed,
    version,
    created_at = CAST(regexp_replace(created_at_text, '(Z|[+-]00:00)$', '') AS DATETIME),
    projected_at = CAST(regexp_replace(projected_at_text, '(Z|[+-]00:00)$', '') AS DATETIME)
)
PROPERTIES (
    "format" = "json",
    "jsonpaths" = "[\"$.org_id\", \"$.source_key\", \"$.session_id\", \"$.user_id\", \"$.principal_id\", \"$.agent_id\", \"$.agent_name_snapshot\", \"$.harness_id\", \"$.harness_name_snapshot\", \"$.app_id\", \"$.blueprint_id\", \"$.created_at\", \"$.time_bucket_day\", \"$.projected_at\", \"$.turn_id\", \"$.capability_id\", \"$.capability_name_snapshot\", \"$.capability_usage_kind\", \"$.tool_name\", \"$.usage_count\", \"$.duration_ms\", \"$.removed\", \"$.version\"]",
    "merge_condition" = "version",
    "max_filter_ratio" = "1"
)
FROM KAFKA (
    "kafka_broker_list" = "kafka:9092",
    "kafka_topic" = "reporting.facts.capability_usage",
    "property.group.id" = "starrocks-reporting",
    "property.kafka_default_offsets" = "OFFSET_BEGINNING"
);
