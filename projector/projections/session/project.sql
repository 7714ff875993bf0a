-- Projects sessions: their latest state, and the capabilities configured for them (contract: facts.md).
--
-- Takes  $1 bigint[] org ids and $2 text[] session ids, in pairs; $3 boolean overwrite.
-- Gives  rows (outcome, name, count, org_id, source_id): `existing` and `gone` name a source, `written` counts by
--        dataset.
-- First pass ($3 false): inserts the facts that are not there yet, locks those that are, and names their sources.
-- Second pass ($3 true), for these alone: their facts are locked, so what it reads is the newest; it overwrites them.
-- The lock on a session's fact also guards the facts of its configured capabilities, so these are only touched where
-- this statement has written the session's own.
WITH input AS MATERIALIZED (
    SELECT DISTINCT given.org_id, given.source_id::uuid AS session_id
    FROM unnest($1::bigint[], $2::text[]) AS given (org_id, source_id)
),
session AS MATERIALIZED (
    SELECT input.org_id, input.session_id, 'session:' || input.session_id AS source_key, found.*
    FROM input
    LEFT JOIN LATERAL (
        SELECT
            s.resolved_owner_user_id AS user_id, s.owner_principal_id AS principal_id, s.agent_id,
            a.id AS own_agent_id, a.name::text AS agent_name_snapshot, s.harness_id, h.id AS own_harness_id,
            h.name::text AS harness_name_snapshot, s.app_id, s.blueprint_id::text AS blueprint_id, s.created_at,
            s.status::text AS status, s.started_at, s.finished_at, s.updated_at, s.capabilities,
            s.turn_count::bigint AS turn_count, s.tool_call_count::bigint AS tool_call_count,
            s.total_input_tokens::bigint AS input_tokens, s.total_output_tokens::bigint AS output_tokens,
            s.total_cache_read_tokens::bigint AS cache_read_tokens,
            s.total_cache_creation_tokens::bigint AS cache_creation_tokens
        FROM sessions AS s
        LEFT JOIN agents AS a ON a.id = s.agent_id AND a.org_id = input.org_id
        LEFT JOIN harnesses AS h ON h.id = s.harness_id AND h.org_id = input.org_id
        WHERE s.id = input.session_id AND s.org_id = input.org_id
        LIMIT 1
    ) AS found ON true
),
written_session AS (
    INSERT INTO fact_session AS f (
        org_id, source_key, session_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
        harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, session_status, started_at,
        finished_at, last_active_at, session_count, duration_ms, turn_count, tool_call_count, input_tokens,
        output_tokens, cache_read_tokens, cache_creation_tokens, total_tokens, projected_at
    )
    SELECT
        s.org_id, s.source_key, s.session_id, s.user_id, s.principal_id, s.agent_id, s.agent_name_snapshot,
        s.harness_id, s.harness_name_snapshot, s.app_id, s.blueprint_id, s.created_at,
        (s.created_at AT TIME ZONE 'UTC')::date, reporting_fit(s.status), s.started_at, s.finished_at, s.updated_at,
        1,
        CASE
            WHEN isfinite(s.started_at) AND isfinite(s.finished_at)
                THEN GREATEST(
                    round((extract(epoch FROM s.finished_at) - extract(epoch FROM s.started_at)) * 1000), 0
                )::bigint
            ELSE 0
        END,
        s.turn_count, s.tool_call_count, s.input_tokens, s.output_tokens, s.cache_read_tokens,
        s.cache_creation_tokens,
        reporting_total(s.input_tokens::numeric + s.output_tokens + s.cache_read_tokens + s.cache_creation_tokens),
        clock_timestamp()
    FROM session AS s
    WHERE s.created_at IS NOT NULL
    ORDER BY s.org_id, s.source_key
    ON CONFLICT (org_id, source_key) DO UPDATE SET
        session_id = excluded.session_id, user_id = excluded.user_id, principal_id = excluded.principal_id,
        agent_id = excluded.agent_id, agent_name_snapshot = excluded.agent_name_snapshot,
        harness_id = excluded.harness_id, harness_name_snapshot = excluded.harness_name_snapshot,
        app_id = excluded.app_id, blueprint_id = excluded.blueprint_id, created_at = excluded.created_at,
        time_bucket_day = excluded.time_bucket_day, session_status = excluded.session_status,
        started_at = excluded.started_at, finished_at = excluded.finished_at,
        last_active_at = excluded.last_active_at, session_count = excluded.session_count,
        duration_ms = excluded.duration_ms, turn_count = excluded.turn_count,
        tool_call_count = excluded.tool_call_count, input_tokens = excluded.input_tokens,
        output_tokens = excluded.output_tokens, cache_read_tokens = excluded.cache_read_tokens,
        cache_creation_tokens = excluded.cache_creation_tokens, total_tokens = excluded.total_tokens,
        projected_at = excluded.projected_at
    WHERE $3
    RETURNING f.org_id, f.source_key
),
held AS MATERIALIZED (
    SELECT s.*
    FROM session AS s
    WHERE (s.org_id, s.source_key) IN (SELECT org_id, source_key FROM written_session)
),
-- What is configured, one row a scope and capability. Agents and harnesses count only where they are the org's own.
configured AS MATERIALIZED (
    SELECT h.org_id, h.session_id, 'agent' AS scope, given.capability_id
    FROM held AS h
    CROSS JOIN LATERAL (
        SELECT c.capability_id::text AS capability_id FROM agent_capabilities AS c WHERE c.agent_id = h.own_agent_id
        OFFSET 0
    ) AS given
    WHERE given.capability_id <> ''
    UNION
    SELECT h.org_id, h.session_id, 'harness', given.capability_id
    FROM held AS h
    CROSS JOIN LATERAL (
        SELECT c.capability_id::text AS capability_id
        FROM harness_capabilities AS c
        WHERE c.harness_id = h.own_harness_id
        OFFSET 0
    ) AS given
    WHERE given.capability_id <> ''
    UNION
    SELECT h.org_id, h.session_id, 'session', given.capability_id
    FROM held AS h
    CROSS JOIN LATERAL (
        SELECT
            CASE jsonb_typeof(element)
                WHEN 'object' THEN reporting_capability_id(element, 'ref')
                WHEN 'string' THEN NULLIF(element #>> '{}', '')
            END AS capability_id
        FROM jsonb_array_elements(
            CASE WHEN jsonb_typeof(h.capabilities) = 'array' THEN h.capabilities ELSE '[]' END
        ) AS listed (element)
    ) AS given
    WHERE given.capability_id IS NOT NULL
),
-- Each capability's name is looked up once for an org, however many sessions have it.
named AS MATERIALIZED (
    SELECT
        used.org_id, used.capability_id,
        COALESCE(
            CASE
                WHEN used.capability_id ~ '^mcp:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                    THEN (
                        SELECT m.name::text
                        FROM mcp_servers AS m
                        WHERE m.id = substr(used.capability_id, length('mcp:') + 1)::uuid AND m.org_id = used.org_id
                    )
                WHEN used.capability_id ~ '^skill:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
                    THEN (
                        SELECT k.name::text
                        FROM skills AS k
                        WHERE k.id = substr(used.capability_id, length('skill:') + 1)::uuid AND k.org_id = used.org_id
                    )
                WHEN starts_with(used.capability_id, 'declarative:')
                    THEN (
                        SELECT COALESCE(d.display_name, d.name)::text
                        FROM declarative_capabilities AS d
                        WHERE d.org_id = used.org_id
                            AND d.name = substr(used.capability_id, length('declarative:') + 1)
                        LIMIT 1
                    )
            END,
            used.capability_id
        ) AS name
    FROM (SELECT DISTINCT org_id, capability_id FROM configured) AS used
),
capability AS MATERIALIZED (
    SELECT
        c.org_id, c.session_id, c.capability_id, n.name,
        'session:' || c.session_id || ':configured:' || c.scope || ':' || reporting_fit(c.capability_id) AS source_key
    FROM configured AS c
    JOIN named AS n ON n.org_id = c.org_id AND n.capability_id = c.capability_id
),
written_capability AS (
    INSERT INTO fact_capability_usage AS f (
        org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
        harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, capability_id,
        capability_name_snapshot, capability_usage_kind, tool_name, usage_count, duration_ms, projected_at
    )
    SELECT
        c.org_id, c.source_key, c.session_id, NULL, s.user_id, s.principal_id, s.agent_id, s.agent_name_snapshot,
        s.harness_id, s.harness_name_snapshot, s.app_id, s.blueprint_id, s.created_at,
        (s.created_at AT TIME ZONE 'UTC')::date, reporting_fit(c.capability_id), c.name, 'configured', NULL, 1, 0,
        clock_timestamp()
    FROM capability AS c
    JOIN held AS s ON s.org_id = c.org_id AND s.session_id = c.session_id
    ORDER BY c.org_id, c.source_key
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
    RETURNING 1
),
stale AS MATERIALIZED (
    SELECT f.org_id, f.source_key
    FROM held AS h
    CROSS JOIN LATERAL (
        SELECT f.org_id, f.source_key
        FROM fact_capability_usage AS f
        WHERE f.org_id = h.org_id AND f.session_id = h.session_id AND f.capability_usage_kind = 'configured'
            AND starts_with(f.source_key, 'session:')
        OFFSET 0
    ) AS f
    WHERE (f.org_id, f.source_key) NOT IN (SELECT org_id, source_key FROM capability)
),
removed AS (
    DELETE FROM fact_capability_usage AS f
    USING stale
    WHERE f.org_id = stale.org_id AND f.source_key = stale.source_key
)
SELECT 'existing' AS outcome, NULL AS name, NULL::bigint AS count, org_id, session_id::text AS source_id
FROM session
WHERE created_at IS NOT NULL AND (org_id, source_key) NOT IN (SELECT org_id, source_key FROM written_session)
UNION ALL
SELECT 'gone', NULL, NULL, org_id, session_id::text FROM session WHERE created_at IS NULL
UNION ALL
SELECT 'written', 'sessions', count(*), NULL, NULL FROM written_session
UNION ALL
SELECT 'written', 'capability_usage', count(*), NULL, NULL FROM written_capability
