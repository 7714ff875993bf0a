-- All tool calls.
-- Takes nothing.
INSERT INTO fact_tool_call (
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, tool_call_id, tool_name,
    tool_display_name_snapshot, tool_status, capability_id, capability_name_snapshot, call_count, success_count,
    error_count, timeout_count, cancelled_count, duration_ms, projected_at
)
SELECT
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, tool_call_id, tool_name,
    tool_display_name_snapshot, tool_status, capability_id, capability_name_snapshot, call_count, success_count,
    error_count, timeout_count, cancelled_count, duration_ms, clock_timestamp()
FROM bench_tool_call
