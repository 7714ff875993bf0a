-- Projects LLM generations (contract: facts.md). A generation may have no session; its dimensions are null then.
--
-- Takes  $1 bigint[] org ids and $2 text[] generation ids, in pairs; $3 boolean overwrite.
-- Gives  rows (outcome, name, count, org_id, source_id): `existing` and `gone` name a source, `written` counts by
--        dataset.
-- First pass ($3 false): inserts the facts that are not there yet, locks those that are, and names their sources.
-- Second pass ($3 true), for these alone: their facts are locked, so what it reads is the newest; it overwrites them.
WITH input AS MATERIALIZED (
    SELECT DISTINCT given.org_id, given.source_id::uuid AS generation_id
    FROM unnest($1::bigint[], $2::text[]) AS given (org_id, source_id)
),
generation AS MATERIALIZED (
    SELECT input.org_id, input.generation_id, 'llm_generation:' || input.generation_id AS source_key, found.*
    FROM input
    LEFT JOIN LATERAL (
        SELECT
            g.session_id, g.turn_id::text AS turn_id, s.resolved_owner_user_id AS user_id,
            s.owner_principal_id AS principal_id, s.agent_id, a.name::text AS agent_name_snapshot, s.harness_id,
            h.name::text AS harness_name_snapshot, s.app_id, s.blueprint_id::text AS blueprint_id, g.created_at,
            g.model::text AS model, g.provider::text AS provider, g.finish_reason::text AS finish_reason,
            g.input_tokens::bigint AS input_tokens, g.output_tokens::bigint AS output_tokens,
            g.cache_read_tokens::bigint AS cache_read_tokens,
            g.cache_creation_tokens::bigint AS cache_creation_tokens, g.duration_ms::bigint AS duration_ms
        FROM llm_generations AS g
        LEFT JOIN sessions AS s ON s.id = g.session_id AND s.org_id = input.org_id
        LEFT JOIN agents AS a ON a.id = s.agent_id AND a.org_id = input.org_id
        LEFT JOIN harnesses AS h ON h.id = s.harness_id AND h.org_id = input.org_id
        WHERE g.id = input.generation_id AND g.org_id = input.org_id
        LIMIT 1
    ) AS found ON true
),
written AS (
    INSERT INTO fact_llm_generation AS f (
        org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
        harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, model, provider, finish_reason,
        input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, total_tokens, duration_ms,
        time_to_first_token_ms, success_count, error_count, projected_at
    )
    SELECT
        g.org_id, g.source_key, g.session_id, g.turn_id, g.user_id, g.principal_id, g.agent_id,
        g.agent_name_snapshot, g.harness_id, g.harness_name_snapshot, g.app_id, g.blueprint_id, g.created_at,
        (g.created_at AT TIME ZONE 'UTC')::date, reporting_fit(g.model), reporting_fit(g.provider), g.finish_reason,
        g.input_tokens, g.output_tokens, g.cache_read_tokens, g.cache_creation_tokens,
        reporting_total(g.input_tokens::numeric + g.output_tokens + g.cache_read_tokens + g.cache_creation_tokens),
        COALESCE(g.duration_ms, 0), 0, 1, 0, clock_timestamp()
    FROM generation AS g
    WHERE g.created_at IS NOT NULL
    ORDER BY g.org_id, g.source_key
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
        success_count = excluded.success_count, error_count = excluded.error_count,
        projected_at = excluded.projected_at
    WHERE $3
    RETURNING f.org_id, f.source_key
)
SELECT 'existing' AS outcome, NULL AS name, NULL::bigint AS count, org_id, generation_id::text AS source_id
FROM generation
WHERE created_at IS NOT NULL AND (org_id, source_key) NOT IN (SELECT org_id, source_key FROM written)
UNION ALL
SELECT 'gone', NULL, NULL, org_id, generation_id::text FROM generation WHERE created_at IS NULL
UNION ALL
SELECT 'written', 'llm_generations', count(*), NULL, NULL FROM written
