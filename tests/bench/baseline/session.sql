-- Upserts the state of one session.
-- Takes  $1 bigint org id; $2 uuid source id.
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
WHERE org_id = $1 AND id = $2
ON CONFLICT (org_id, source_key) DO UPDATE SET
    session_id = excluded.session_id, user_id = excluded.user_id, principal_id = excluded.principal_id,
    agent_id = excluded.agent_id, agent_name_snapshot = excluded.agent_name_snapshot,
    harness_id = excluded.harness_id, harness_name_snapshot = excluded.harness_name_snapshot,
    app_id = excluded.app_id, blueprint_id = excluded.blueprint_id, created_at = excluded.created_at,
    time_bucket_day = excluded.time_bucket_day, session_status = excluded.session_status,
    started_at = excluded.started_at, finished_at = excluded.finished_at, last_active_at = excluded.last_active_at,
    session_count = excluded.session_count, duration_ms = excluded.duration_ms, turn_count = excluded.turn_count,
    tool_call_count = excluded.tool_call_count, input_tokens = excluded.input_tokens,
    output_tokens = excluded.output_tokens, cache_read_tokens = excluded.cache_read_tokens,
    cache_creation_tokens = excluded.cache_creation_tokens, total_tokens = excluded.total_tokens,
    projected_at = excluded.projected_at
