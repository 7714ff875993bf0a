-- Upserts the capabilities configured for one session.
-- Takes  $1 bigint org id; $2 uuid source id.
INSERT INTO fact_capability_usage (
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, capability_id, capability_name_snapshot,
    capability_usage_kind, tool_name, usage_count, duration_ms, projected_at
)
SELECT
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, capability_id, capability_name_snapshot,
    capability_usage_kind, tool_name, usage_count, duration_ms, clock_timestamp()
FROM bench_configured_usage
WHERE org_id = $1 AND id = $2
ON CONFLICT (org_id, source_key) DO UPDATE SET
    session_id = excluded.session_id, turn_id = excluded.turn_id, user_id = excluded.user_id,
    principal_id = excluded.principal_id, agent_id = excluded.agent_id,
    agent_name_snapshot = excluded.agent_name_snapshot, harness_id = excluded.harness_id,
    harness_name_snapshot = excluded.harness_name_snapshot, app_id = excluded.app_id,
    blueprint_id = excluded.blueprint_id, created_at = excluded.created_at,
    time_bucket_day = excluded.time_bucket_day, capability_id = excluded.capability_id,
    capability_name_snapshot = excluded.capability_name_snapshot,
    capability_usage_kind = excluded.capability_usage_kind, tool_name = excluded.tool_name,
    usage_count = excluded.usage_count, duration_ms = excluded.duration_ms, projected_at = excluded.projected_at
