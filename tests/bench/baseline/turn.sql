-- Upserts the fact of one turn that has ended, and counts its tool calls.
-- Takes  $1 bigint org id; $2 uuid source id.
INSERT INTO fact_turn (
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, turn_status, turn_count, duration_ms,
    iterations, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, total_tokens, tool_call_count,
    success_count, error_count, projected_at
)
SELECT
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, turn_status, turn_count, duration_ms,
    iterations, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, total_tokens,
    (
        SELECT count(*)
        FROM events AS e
        WHERE e.session_id = t.session_id AND e.event_type = 'tool.completed'
            AND COALESCE(e.context ->> 'turn_id', e.data ->> 'turn_id') = t.turn_id
    ) AS tool_call_count,
    success_count, error_count, clock_timestamp()
FROM bench_turn AS t
WHERE org_id = $1 AND id = $2
ON CONFLICT (org_id, source_key) DO UPDATE SET
    session_id = excluded.session_id, turn_id = excluded.turn_id, user_id = excluded.user_id,
    principal_id = excluded.principal_id, agent_id = excluded.agent_id,
    agent_name_snapshot = excluded.agent_name_snapshot, harness_id = excluded.harness_id,
    harness_name_snapshot = excluded.harness_name_snapshot, app_id = excluded.app_id,
    blueprint_id = excluded.blueprint_id, created_at = excluded.created_at,
    time_bucket_day = excluded.time_bucket_day, turn_status = excluded.turn_status, turn_count = excluded.turn_count,
    duration_ms = excluded.duration_ms, iterations = excluded.iterations, input_tokens = excluded.input_tokens,
    output_tokens = excluded.output_tokens, cache_read_tokens = excluded.cache_read_tokens,
    cache_creation_tokens = excluded.cache_creation_tokens, total_tokens = excluded.total_tokens,
    tool_call_count = excluded.tool_call_count, success_count = excluded.success_count,
    error_count = excluded.error_count, projected_at = excluded.projected_at
