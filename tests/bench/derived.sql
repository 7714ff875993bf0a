-- The contract's derivations (facts.md) as views, in the plainest SQL that gives the right facts for a backlog without
-- hostile JSON. The row-at-a-time baseline reads one row of them at a time, the limit reads each from end to end: both
-- pay for no guard that this backlog does not need, apart from reporting_count(), the contract's rule for numbers.
--
-- A view is expanded where it is used, so that a statement over it is planned as if it were written out.
-- Takes nothing. Gives the views bench_*: the columns of a fact, and `id`, the source row's.

CREATE VIEW bench_session_dimensions AS
SELECT
    s.org_id, s.id AS session_id, s.resolved_owner_user_id AS user_id, s.owner_principal_id AS principal_id,
    s.agent_id, a.name AS agent_name_snapshot, s.harness_id, h.name AS harness_name_snapshot, s.app_id, s.blueprint_id,
    s.created_at AS session_created_at
FROM sessions AS s
LEFT JOIN agents AS a ON a.id = s.agent_id AND a.org_id = s.org_id
LEFT JOIN harnesses AS h ON h.id = s.harness_id AND h.org_id = s.org_id;

CREATE VIEW bench_tool_call AS
SELECT
    d.*, e.id, 'event:' || e.id AS source_key, e.ts AS created_at, (e.ts AT TIME ZONE 'UTC')::date AS time_bucket_day,
    COALESCE(e.context ->> 'turn_id', e.data ->> 'turn_id') AS turn_id,
    e.data ->> 'tool_call_id' AS tool_call_id, e.data ->> 'tool_name' AS tool_name,
    e.data ->> 'display_name' AS tool_display_name_snapshot,
    COALESCE(e.data ->> 'status', CASE e.data ->> 'success' WHEN 'true' THEN 'success' ELSE 'error' END) AS tool_status,
    NULLIF(e.data ->> 'capability_id', '') AS capability_id, e.data ->> 'capability_name' AS capability_name_snapshot,
    1 AS call_count,
    CASE WHEN e.data ->> 'status' = 'success' OR e.data ->> 'success' = 'true' THEN 1 ELSE 0 END AS success_count,
    CASE WHEN e.data ->> 'status' = 'error' OR e.data ->> 'success' = 'false' THEN 1 ELSE 0 END AS error_count,
    CASE e.data ->> 'status' WHEN 'timeout' THEN 1 ELSE 0 END AS timeout_count,
    CASE e.data ->> 'status' WHEN 'cancelled' THEN 1 ELSE 0 END AS cancelled_count,
    reporting_count(e.data ->> 'duration_ms', 0) AS duration_ms
FROM events AS e
JOIN bench_session_dimensions AS d ON d.session_id = e.session_id
WHERE e.event_type = 'tool.completed';

-- Without tool_call_count: one row counts its own turn's calls, all rows together count them once.
CREATE VIEW bench_turn AS
SELECT
    turn.*, turn.input_tokens + turn.output_tokens AS total_tokens
FROM (
    SELECT
        d.*, e.id, 'event:' || e.id AS source_key, e.ts AS created_at,
        (e.ts AT TIME ZONE 'UTC')::date AS time_bucket_day,
        COALESCE(e.data ->> 'turn_id', e.context ->> 'turn_id') AS turn_id,
        substr(e.event_type, length('turn.') + 1) AS turn_status, 1 AS turn_count,
        reporting_count(e.data ->> 'duration_ms', 0) AS duration_ms,
        reporting_count(e.data ->> 'iterations', 0) AS iterations,
        reporting_count(e.data #>> '{usage,input_tokens}', 0) AS input_tokens,
        reporting_count(e.data #>> '{usage,output_tokens}', 0) AS output_tokens,
        reporting_count(e.data #>> '{usage,cache_read_tokens}', 0) AS cache_read_tokens,
        reporting_count(e.data #>> '{usage,cache_creation_tokens}', 0) AS cache_creation_tokens,
        CASE e.event_type WHEN 'turn.completed' THEN 1 ELSE 0 END AS success_count,
        CASE e.event_type WHEN 'turn.completed' THEN 0 ELSE 1 END AS error_count
    FROM events AS e
    JOIN bench_session_dimensions AS d ON d.session_id = e.session_id
    WHERE e.event_type IN ('turn.completed', 'turn.failed', 'turn.cancelled')
) AS turn;

CREATE VIEW bench_tool_usage AS
SELECT
    d.*, e.id, 'event:' || e.id || ':invoked' AS source_key, e.ts AS created_at,
    (e.ts AT TIME ZONE 'UTC')::date AS time_bucket_day,
    COALESCE(e.context ->> 'turn_id', e.data ->> 'turn_id') AS turn_id,
    e.data ->> 'capability_id' AS capability_id, e.data ->> 'capability_name' AS capability_name_snapshot,
    'invoked' AS capability_usage_kind, e.data ->> 'tool_name' AS tool_name, 1::bigint AS usage_count,
    reporting_count(e.data ->> 'duration_ms', 0) AS duration_ms
FROM events AS e
JOIN bench_session_dimensions AS d ON d.session_id = e.session_id
WHERE e.event_type = 'tool.completed' AND e.data ->> 'capability_id' <> '';

CREATE VIEW bench_recorded_usage AS
SELECT
    d.*, e.id, 'event:' || e.id || ':capability_usage:' || listed.position AS source_key, e.ts AS created_at,
    (e.ts AT TIME ZONE 'UTC')::date AS time_bucket_day,
    COALESCE(e.context ->> 'turn_id', e.data ->> 'turn_id') AS turn_id,
    listed.record ->> 'capability_id' AS capability_id,
    listed.record ->> 'capability_name' AS capability_name_snapshot,
    listed.record ->> 'usage_kind' AS capability_usage_kind, listed.record ->> 'tool_name' AS tool_name,
    reporting_count(listed.record ->> 'usage_count', 1) AS usage_count,
    reporting_count(listed.record ->> 'duration_ms', 0) AS duration_ms
FROM events AS e
JOIN bench_session_dimensions AS d ON d.session_id = e.session_id
CROSS JOIN LATERAL jsonb_array_elements(e.data -> 'records') WITH ORDINALITY AS listed (record, position)
WHERE e.event_type = 'capability.usage' AND listed.record ->> 'capability_id' <> ''
    AND listed.record ->> 'usage_kind' IN ('configured', 'resolved', 'exposed', 'invoked', 'effect_ran');

CREATE VIEW bench_guardrail_usage AS
SELECT
    d.*, e.id, 'event:' || e.id || ':effect_ran' AS source_key, e.ts AS created_at,
    (e.ts AT TIME ZONE 'UTC')::date AS time_bucket_day,
    COALESCE(e.context ->> 'turn_id', e.data ->> 'turn_id') AS turn_id,
    e.data ->> 'guardrail_capability_id' AS capability_id,
    e.data ->> 'guardrail_capability_id' AS capability_name_snapshot,
    'effect_ran' AS capability_usage_kind, NULL::text AS tool_name, 1::bigint AS usage_count, 0::bigint AS duration_ms
FROM events AS e
JOIN bench_session_dimensions AS d ON d.session_id = e.session_id
WHERE e.event_type = 'output.message.replaced' AND e.data ->> 'guardrail_capability_id' <> '';

CREATE VIEW bench_configured_usage AS
SELECT
    d.*, d.session_id AS id,
    'session:' || d.session_id || ':configured:' || configured.scope || ':' || configured.capability_id AS source_key,
    d.session_created_at AS created_at, (d.session_created_at AT TIME ZONE 'UTC')::date AS time_bucket_day,
    NULL::text AS turn_id,
    configured.capability_id,
    COALESCE(m.name, k.name, c.display_name, c.name, configured.capability_id) AS capability_name_snapshot,
    'configured' AS capability_usage_kind, NULL::text AS tool_name, 1::bigint AS usage_count, 0::bigint AS duration_ms
FROM (
    SELECT s.id AS session_id, 'agent' AS scope, listed.capability_id::text AS capability_id
    FROM sessions AS s
    JOIN agents AS a ON a.id = s.agent_id AND a.org_id = s.org_id
    JOIN agent_capabilities AS listed ON listed.agent_id = a.id
    UNION
    SELECT s.id, 'harness', listed.capability_id
    FROM sessions AS s
    JOIN harnesses AS h ON h.id = s.harness_id AND h.org_id = s.org_id
    JOIN harness_capabilities AS listed ON listed.harness_id = h.id
    UNION
    SELECT s.id, 'session', COALESCE(element ->> 'ref', element #>> '{}')
    FROM sessions AS s
    CROSS JOIN LATERAL jsonb_array_elements(s.capabilities) AS listed (element)
) AS configured
JOIN bench_session_dimensions AS d ON d.session_id = configured.session_id
LEFT JOIN mcp_servers AS m ON m.org_id = d.org_id AND 'mcp:' || m.id = configured.capability_id
LEFT JOIN skills AS k ON k.org_id = d.org_id AND 'skill:' || k.id = configured.capability_id
LEFT JOIN declarative_capabilities AS c ON c.org_id = d.org_id AND 'declarative:' || c.name = configured.capability_id
WHERE configured.capability_id <> '';

CREATE VIEW bench_session AS
SELECT
    s.org_id, s.id, 'session:' || s.id AS source_key, s.id AS session_id, s.resolved_owner_user_id AS user_id,
    s.owner_principal_id AS principal_id, s.agent_id, a.name AS agent_name_snapshot, s.harness_id,
    h.name AS harness_name_snapshot, s.app_id, s.blueprint_id, s.created_at,
    (s.created_at AT TIME ZONE 'UTC')::date AS time_bucket_day, s.status AS session_status, s.started_at,
    s.finished_at, s.updated_at AS last_active_at, 1 AS session_count,
    COALESCE(GREATEST(round(extract(epoch FROM s.finished_at - s.started_at) * 1000), 0), 0)::bigint AS duration_ms,
    s.turn_count, s.tool_call_count, s.total_input_tokens AS input_tokens, s.total_output_tokens AS output_tokens,
    s.total_cache_read_tokens AS cache_read_tokens, s.total_cache_creation_tokens AS cache_creation_tokens,
    s.total_input_tokens + s.total_output_tokens + s.total_cache_read_tokens + s.total_cache_creation_tokens
        AS total_tokens
FROM sessions AS s
LEFT JOIN agents AS a ON a.id = s.agent_id AND a.org_id = s.org_id
LEFT JOIN harnesses AS h ON h.id = s.harness_id AND h.org_id = s.org_id;

CREATE VIEW bench_llm_generation AS
SELECT
    g.org_id, g.session_id, d.user_id, d.principal_id, d.agent_id, d.agent_name_snapshot, d.harness_id,
    d.harness_name_snapshot, d.app_id, d.blueprint_id, g.id, 'llm_generation:' || g.id AS source_key, g.created_at,
    (g.created_at AT TIME ZONE 'UTC')::date AS time_bucket_day, g.turn_id::text AS turn_id, g.model, g.provider,
    g.finish_reason, g.input_tokens, g.output_tokens, g.cache_read_tokens, g.cache_creation_tokens,
    g.input_tokens + g.output_tokens + g.cache_read_tokens + g.cache_creation_tokens AS total_tokens,
    COALESCE(g.duration_ms, 0) AS duration_ms, 0 AS time_to_first_token_ms, 1 AS success_count, 0 AS error_count
FROM llm_generations AS g
LEFT JOIN bench_session_dimensions AS d ON d.session_id = g.session_id AND d.org_id = g.org_id;

CREATE VIEW bench_budget_posting AS
SELECT
    l.org_id, l.session_id, l.user_id, l.principal_id, l.agent_id, a.name AS agent_name_snapshot, l.harness_id,
    h.name AS harness_name_snapshot, s.app_id, s.blueprint_id, l.id, 'usage_ledger:' || l.id AS source_key,
    l.created_at, (l.created_at AT TIME ZONE 'UTC')::date AS time_bucket_day, l.budget_id,
    b.subject_type AS budget_subject_type, b.subject_id AS budget_subject_id, l.currency, l.meter_source, l.ref_type,
    l.amount, CASE WHEN l.amount >= 0 THEN 1 ELSE 0 END AS debit_count,
    CASE WHEN l.amount < 0 THEN 1 ELSE 0 END AS credit_count
FROM usage_ledger AS l
LEFT JOIN sessions AS s ON s.id = l.session_id AND s.org_id = l.org_id
LEFT JOIN budgets AS b ON b.id = l.budget_id AND b.org_id = l.org_id
LEFT JOIN agents AS a ON a.id = l.agent_id AND a.org_id = l.org_id
LEFT JOIN harnesses AS h ON h.id = l.harness_id AND h.org_id = l.org_id;
