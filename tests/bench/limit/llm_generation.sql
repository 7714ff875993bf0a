-- All generations.
-- Takes nothing.
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
