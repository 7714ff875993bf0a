-- Upserts the fact of one generation.
-- Takes  $1 bigint org id; $2 uuid source id.
INSERT INTO fact_llm_generation (
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, model, provider, finish_reason,
    input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, total_tokens, duration_ms,
    time_to_first_token_ms, success_count, error_count, projected_at
)
SELECT
    org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, model, provider, finish_reason,
    input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, total_tokens, duration_ms,
    time_to_first_token_ms, success_count, error_count, clock_timestamp()
FROM bench_llm_generation
WHERE org_id = $1 AND id = $2
ON CONFLICT (org_id, source_key) DO UPDATE SET
    session_id = excluded.session_id, turn_id = excluded.turn_id, user_id = excluded.user_id,
    principal_id = excluded.principal_id, agent_id = excluded.agent_id,
    agent_name_snapshot = excluded.agent_name_snapshot, harness_id = excluded.harness_id,
    harness_name_snapshot = excluded.harness_name_snapshot, app_id = excluded.app_id,
    blueprint_id = excluded.blueprint_id, created_at = excluded.created_at,
    time_bucket_day = excluded.time_bucket_day, model = excluded.model, provider = excluded.provider,
    finish_reason = excluded.finish_reason, input_tokens = excluded.input_tokens,
    output_tokens = excluded.output_tokens, cache_read_tokens = excluded.cache_read_tokens,
    cache_creation_tokens = excluded.cache_creation_tokens, total_tokens = excluded.total_tokens,
    duration_ms = excluded.duration_ms, time_to_first_token_ms = excluded.time_to_first_token_ms,
    success_count = excluded.success_count, error_count = excluded.error_count, projected_at = excluded.projected_at
