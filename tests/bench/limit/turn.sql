-- All turns that have ended, with the counts of their tool calls.
-- Takes nothing.
INSERT INTO fact_turn (
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, turn_status, turn_count, duration_ms,
    iterations, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, total_tokens, tool_call_count,
    success_count, error_count, projected_at
)
SELECT
    t.org_id, t.source_key, t.session_id, t.turn_id, t.user_id, t.principal_id, t.agent_id, t.agent_name_snapshot,
    t.harness_id, t.harness_name_snapshot, t.app_id, t.blueprint_id, t.created_at, t.time_bucket_day, t.turn_status,
    t.turn_count, t.duration_ms, t.iterations, t.input_tokens, t.output_tokens, t.cache_read_tokens,
    t.cache_creation_tokens, t.total_tokens, COALESCE(c.tool_call_count, 0), t.success_count, t.error_count,
    clock_timestamp()
FROM bench_turn AS t
LEFT JOIN (
    SELECT session_id, COALESCE(context ->> 'turn_id', data ->> 'turn_id') AS turn_id, count(*) AS tool_call_count
    FROM events
    WHERE event_type = 'tool.completed'
    GROUP BY session_id, COALESCE(context ->> 'turn_id', data ->> 'turn_id')
) AS c ON c.session_id = t.session_id AND c.turn_id = t.turn_id
