-- All sessions.
-- Takes nothing.
INSERT INTO fact_session (
    org_id, source_key, session_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, session_status, started_at, finished_at,
    last_active_at, session_count, duration_ms, turn_count, tool_call_count, input_tokens, output_tokens,
    cache_read_tokens, cache_creation_tokens, total_tokens, projected_at
)
SELECT
    org_id, source_key, session_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, session_status, started_at, finished_at,
    last_active_at, session_count, duration_ms, turn_count, tool_call_count, input_tokens, output_tokens,
    cache_read_tokens, cache_creation_tokens, total_tokens, clock_timestamp()
FROM bench_session
