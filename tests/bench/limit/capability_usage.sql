-- All usage of capabilities, of its four origins.
-- Takes nothing.
INSERT INTO fact_capability_usage (
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, capability_id, capability_name_snapshot,
    capability_usage_kind, tool_name, usage_count, duration_ms, projected_at
)
SELECT
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, capability_id, capability_name_snapshot,
    capability_usage_kind, tool_name, usage_count, duration_ms, clock_timestamp()
FROM bench_tool_usage
UNION ALL
SELECT
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, capability_id, capability_name_snapshot,
    capability_usage_kind, tool_name, usage_count, duration_ms, clock_timestamp()
FROM bench_recorded_usage
UNION ALL
SELECT
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, capability_id, capability_name_snapshot,
    capability_usage_kind, tool_name, usage_count, duration_ms, clock_timestamp()
FROM bench_guardrail_usage
UNION ALL
SELECT
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, capability_id, capability_name_snapshot,
    capability_usage_kind, tool_name, usage_count, duration_ms, clock_timestamp()
FROM bench_configured_usage
