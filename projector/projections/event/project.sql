-- Projects events: tool calls, turns and the usage of capabilities (contract: facts.md).
--
-- Takes  $1 bigint[] org ids and $2 text[] event ids, in pairs; $3 boolean overwrite.
-- Gives  rows (outcome, name, count, org_id, source_id): `existing` and `gone` name a source, `written` and `skipped`
--        count by dataset and by reason.
-- First pass ($3 false): inserts the facts that are not there yet, locks those that are, and names their sources.
-- Second pass ($3 true), for these alone: their facts are locked, so what it reads is the newest; it overwrites them.
--
-- Every lookup by id is a LATERAL with LIMIT or OFFSET 0: a nested loop over an index whatever the statistics say.
WITH input AS MATERIALIZED (
    SELECT DISTINCT given.org_id, given.source_id::uuid AS event_id
    FROM unnest($1::bigint[], $2::text[]) AS given (org_id, source_id)
),
event AS MATERIALIZED (
    SELECT input.org_id, input.event_id, found.session_id, found.event_type, found.data, found.context, found.ts
    FROM input
    LEFT JOIN LATERAL (
        SELECT e.session_id, e.event_type, e.data, e.context, e.ts
        FROM events AS e
        JOIN sessions AS s ON s.id = e.session_id
        WHERE e.id = input.event_id AND s.org_id = input.org_id
        LIMIT 1
    ) AS found ON true
),
session AS MATERIALIZED (
    SELECT touched.org_id, touched.session_id, found.*
    FROM (
        SELECT DISTINCT org_id, session_id
        FROM event
        WHERE event_type IN (
            'tool.completed', 'turn.completed', 'turn.failed', 'turn.cancelled', 'capability.usage',
            'output.message.replaced'
        )
    ) AS touched
    CROSS JOIN LATERAL (
        SELECT
            s.resolved_owner_user_id AS user_id, s.owner_principal_id AS principal_id,
            s.agent_id, a.name::text AS agent_name_snapshot, s.harness_id, h.name::text AS harness_name_snapshot,
            s.app_id, s.blueprint_id::text AS blueprint_id
        FROM sessions AS s
        LEFT JOIN agents AS a ON a.id = s.agent_id AND a.org_id = touched.org_id
        LEFT JOIN harnesses AS h ON h.id = s.harness_id AND h.org_id = touched.org_id
        WHERE s.id = touched.session_id AND s.org_id = touched.org_id
        LIMIT 1
    ) AS found
),
tool AS MATERIALIZED (
    SELECT
        org_id, event_id, 'event:' || event_id AS source_key, session_id, ts,
        COALESCE(reporting_text(context, 'turn_id'), reporting_text(data, 'turn_id')) AS turn_id,
        reporting_text(data, 'tool_call_id') AS tool_call_id,
        reporting_text(data, 'tool_name') AS tool_name,
        reporting_text(data, 'display_name') AS display_name,
        reporting_text(data, 'status') AS status,
        reporting_text(data, 'success') AS success,
        reporting_capability_id(data, 'capability_id') AS capability_id,
        reporting_text(data, 'capability_name') AS capability_name,
        data ->> 'duration_ms' AS duration_ms
    FROM event
    WHERE event_type = 'tool.completed'
),
-- The turns of this batch, and those whose tool calls this batch brings: a late tool call raises its turn's count.
turn AS MATERIALIZED (
    SELECT
        org_id, event_id, session_id, event_type::text AS event_type, ts, data,
        COALESCE(reporting_text(data, 'turn_id'), reporting_text(context, 'turn_id')) AS turn_id, true AS given
    FROM event
    WHERE event_type IN ('turn.completed', 'turn.failed', 'turn.cancelled')
    UNION ALL
    SELECT
        touched.org_id, ended.id, touched.session_id, ended.event_type::text, ended.ts, ended.data,
        ended.turn_id, false
    FROM (SELECT DISTINCT org_id, session_id FROM tool WHERE turn_id IS NOT NULL AND NOT $3) AS touched
    CROSS JOIN LATERAL (
        SELECT
            e.id, e.event_type, e.ts, e.data,
            COALESCE(reporting_text(e.data, 'turn_id'), reporting_text(e.context, 'turn_id')) AS turn_id
        FROM events AS e
        WHERE e.session_id = touched.session_id AND e.event_type IN ('turn.completed', 'turn.failed', 'turn.cancelled')
        OFFSET 0
    ) AS ended
    WHERE (touched.org_id, touched.session_id, ended.turn_id) IN (SELECT org_id, session_id, turn_id FROM tool)
        AND (touched.org_id, ended.id) NOT IN (SELECT org_id, event_id FROM event)
),
tool_count AS MATERIALIZED (
    SELECT touched.session_id, called.turn_id, count(*) AS tool_call_count
    FROM (SELECT DISTINCT session_id FROM turn WHERE turn_id IS NOT NULL) AS touched
    CROSS JOIN LATERAL (
        SELECT COALESCE(reporting_text(e.context, 'turn_id'), reporting_text(e.data, 'turn_id')) AS turn_id
        FROM events AS e
        WHERE e.session_id = touched.session_id AND e.event_type = 'tool.completed'
        OFFSET 0
    ) AS called
    WHERE called.turn_id IS NOT NULL
    GROUP BY touched.session_id, called.turn_id
),
ended_turn AS MATERIALIZED (
    SELECT
        t.org_id, t.event_id, 'event:' || t.event_id AS source_key, t.session_id, t.event_type, t.ts, t.turn_id,
        COALESCE(c.tool_call_count, 0) AS tool_call_count,
        t.data ->> 'duration_ms' AS duration_ms, t.data ->> 'iterations' AS iterations,
        t.data #>> '{usage,input_tokens}' AS input_tokens, t.data #>> '{usage,output_tokens}' AS output_tokens,
        t.data #>> '{usage,cache_read_tokens}' AS cache_read_tokens,
        t.data #>> '{usage,cache_creation_tokens}' AS cache_creation_tokens
    FROM turn AS t
    LEFT JOIN tool_count AS c ON c.session_id = t.session_id AND c.turn_id = t.turn_id
    LEFT JOIN LATERAL (
        SELECT f.tool_call_count
        FROM fact_turn AS f
        WHERE NOT t.given AND f.org_id = t.org_id AND f.source_key = 'event:' || t.event_id
        LIMIT 1
    ) AS fact ON true
    -- A turn that is only touched is left alone where its fact counts the same already.
    WHERE t.given OR fact.tool_call_count IS DISTINCT FROM COALESCE(c.tool_call_count, 0)
),
record AS MATERIALIZED (
    SELECT
        e.org_id, e.event_id, e.session_id, e.ts, e.context, e.data, given.position, given.record,
        CASE
            WHEN reporting_capability_id(given.record, 'capability_id') IS NULL THEN 'capability_id'
            WHEN given.record ->> 'usage_kind' IN ('configured', 'resolved', 'exposed', 'invoked', 'effect_ran') THEN NULL
            ELSE 'usage_kind'
        END AS skipped
    FROM event AS e
    CROSS JOIN LATERAL jsonb_array_elements(
        CASE WHEN jsonb_typeof(e.data -> 'records') = 'array' THEN e.data -> 'records' ELSE '[]' END
    ) WITH ORDINALITY AS given (record, position)
    WHERE e.event_type = 'capability.usage'
),
usage AS MATERIALIZED (
    SELECT
        org_id, event_id, source_key || ':invoked' AS source_key, session_id, ts, turn_id, capability_id,
        capability_name, 'invoked' AS usage_kind, tool_name, '1' AS usage_count, duration_ms
    FROM tool
    WHERE capability_id IS NOT NULL
    UNION ALL
    SELECT
        org_id, event_id, 'event:' || event_id || ':capability_usage:' || position, session_id, ts,
        COALESCE(reporting_text(context, 'turn_id'), reporting_text(data, 'turn_id')),
        record ->> 'capability_id', reporting_text(record, 'capability_name'), record ->> 'usage_kind',
        reporting_text(record, 'tool_name'), record ->> 'usage_count', record ->> 'duration_ms'
    FROM record
    WHERE skipped IS NULL
    UNION ALL
    SELECT
        org_id, event_id, 'event:' || event_id || ':effect_ran', session_id, ts,
        COALESCE(reporting_text(context, 'turn_id'), reporting_text(data, 'turn_id')),
        data ->> 'guardrail_capability_id', data ->> 'guardrail_capability_id', 'effect_ran', NULL, '1', '0'
    FROM event
    WHERE event_type = 'output.message.replaced'
        AND reporting_capability_id(data, 'guardrail_capability_id') IS NOT NULL
),
-- Facts that these events no longer give.
stale AS MATERIALIZED (
    SELECT f.org_id, f.source_key
    FROM event AS e
    CROSS JOIN LATERAL (
        SELECT f.org_id, f.source_key
        FROM fact_capability_usage AS f
        WHERE f.org_id = e.org_id
            AND f.source_key ~>=~ ('event:' || e.event_id || ':') AND f.source_key ~<~ ('event:' || e.event_id || ';')
        OFFSET 0
    ) AS f
    WHERE e.event_type IN ('tool.completed', 'capability.usage', 'output.message.replaced')
        AND (f.org_id, f.source_key) NOT IN (SELECT org_id, source_key FROM usage)
),
written_tool AS (
    INSERT INTO fact_tool_call AS f (
        org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
        harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, tool_call_id, tool_name,
        tool_display_name_snapshot, tool_status, capability_id, capability_name_snapshot, call_count, success_count,
        error_count, timeout_count, cancelled_count, duration_ms, projected_at
    )
    SELECT
        t.org_id, t.source_key, t.session_id, t.turn_id, s.user_id, s.principal_id, s.agent_id,
        s.agent_name_snapshot, s.harness_id, s.harness_name_snapshot, s.app_id, s.blueprint_id, t.ts,
        (t.ts AT TIME ZONE 'UTC')::date, t.tool_call_id, reporting_fit(t.tool_name), t.display_name,
        reporting_fit(COALESCE(t.status, CASE t.success WHEN 'true' THEN 'success' ELSE 'error' END)),
        reporting_fit(t.capability_id), t.capability_name, 1,
        CASE WHEN t.status = 'success' OR t.success = 'true' THEN 1 ELSE 0 END,
        CASE WHEN t.status = 'error' OR t.success = 'false' THEN 1 ELSE 0 END,
        CASE t.status WHEN 'timeout' THEN 1 ELSE 0 END,
        CASE t.status WHEN 'cancelled' THEN 1 ELSE 0 END,
        reporting_count(t.duration_ms, 0), clock_timestamp()
    FROM tool AS t
    JOIN session AS s ON s.org_id = t.org_id AND s.session_id = t.session_id
    ORDER BY t.org_id, t.source_key
    ON CONFLICT (org_id, source_key) DO UPDATE SET
        session_id = excluded.session_id, turn_id = excluded.turn_id, user_id = excluded.user_id,
        principal_id = excluded.principal_id, agent_id = excluded.agent_id,
        agent_name_snapshot = excluded.agent_name_snapshot, harness_id = excluded.harness_id,
        harness_name_snapshot = excluded.harness_name_snapshot, app_id = excluded.app_id,
        blueprint_id = excluded.blueprint_id, created_at = excluded.created_at,
        time_bucket_day = excluded.time_bucket_day, tool_call_id = excluded.tool_call_id,
        tool_name = excluded.tool_name, tool_display_name_snapshot = excluded.tool_display_name_snapshot,
        tool_status = excluded.tool_status, capability_id = excluded.capability_id,
        capability_name_snapshot = excluded.capability_name_snapshot, call_count = excluded.call_count,
        success_count = excluded.success_count, error_count = excluded.error_count,
        timeout_count = excluded.timeout_count, cancelled_count = excluded.cancelled_count,
        duration_ms = excluded.duration_ms, projected_at = excluded.projected_at
    WHERE $3
    RETURNING f.org_id, f.source_key
),
written_turn AS (
    INSERT INTO fact_turn AS f (
        org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
        harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, turn_status, turn_count,
        duration_ms, iterations, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, total_tokens,
        tool_call_count, success_count, error_count, projected_at
    )
    SELECT
        t.org_id, t.source_key, t.session_id, t.turn_id, s.user_id, s.principal_id, s.agent_id,
        s.agent_name_snapshot, s.harness_id, s.harness_name_snapshot, s.app_id, s.blueprint_id, t.ts,
        (t.ts AT TIME ZONE 'UTC')::date, substr(t.event_type, length('turn.') + 1), 1,
        reporting_count(t.duration_ms, 0), reporting_count(t.iterations, 0),
        reporting_count(t.input_tokens, 0), reporting_count(t.output_tokens, 0),
        reporting_count(t.cache_read_tokens, 0), reporting_count(t.cache_creation_tokens, 0),
        reporting_total(reporting_count(t.input_tokens, 0)::numeric + reporting_count(t.output_tokens, 0)),
        t.tool_call_count,
        CASE t.event_type WHEN 'turn.completed' THEN 1 ELSE 0 END,
        CASE t.event_type WHEN 'turn.completed' THEN 0 ELSE 1 END,
        clock_timestamp()
    FROM ended_turn AS t
    JOIN session AS s ON s.org_id = t.org_id AND s.session_id = t.session_id
    ORDER BY t.org_id, t.source_key
    ON CONFLICT (org_id, source_key) DO UPDATE SET
        session_id = excluded.session_id, turn_id = excluded.turn_id, user_id = excluded.user_id,
        principal_id = excluded.principal_id, agent_id = excluded.agent_id,
        agent_name_snapshot = excluded.agent_name_snapshot, harness_id = excluded.harness_id,
        harness_name_snapshot = excluded.harness_name_snapshot, app_id = excluded.app_id,
        blueprint_id = excluded.blueprint_id, created_at = excluded.created_at,
        time_bucket_day = excluded.time_bucket_day, turn_status = excluded.turn_status,
        turn_count = excluded.turn_count, duration_ms = excluded.duration_ms, iterations = excluded.iterations,
        input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens,
        cache_read_tokens = excluded.cache_read_tokens, cache_creation_tokens = excluded.cache_creation_tokens,
        total_tokens = excluded.total_tokens, tool_call_count = excluded.tool_call_count,
        success_count = excluded.success_count, error_count = excluded.error_count,
        projected_at = excluded.projected_at
    WHERE $3
    RETURNING f.org_id, f.source_key
),
written_usage AS (
    INSERT INTO fact_capability_usage AS f (
        org_id, source_key, session_id, turn_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
        harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, capability_id,
        capability_name_snapshot, capability_usage_kind, tool_name, usage_count, duration_ms, projected_at
    )
    SELECT
        u.org_id, u.source_key, u.session_id, u.turn_id, s.user_id, s.principal_id, s.agent_id,
        s.agent_name_snapshot, s.harness_id, s.harness_name_snapshot, s.app_id, s.blueprint_id, u.ts,
        (u.ts AT TIME ZONE 'UTC')::date, reporting_fit(u.capability_id), u.capability_name, u.usage_kind,
        reporting_fit(u.tool_name), reporting_count(u.usage_count, 1), reporting_count(u.duration_ms, 0),
        clock_timestamp()
    FROM usage AS u
    JOIN session AS s ON s.org_id = u.org_id AND s.session_id = u.session_id
    ORDER BY u.org_id, u.source_key
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
    WHERE $3
    RETURNING f.org_id, f.source_key
),
removed AS (
    DELETE FROM fact_capability_usage AS f
    USING stale
    WHERE f.org_id = stale.org_id AND f.source_key = stale.source_key
)
SELECT 'existing' AS outcome, NULL AS name, NULL::bigint AS count, kept.org_id, kept.event_id::text AS source_id
FROM (
    SELECT org_id, event_id FROM tool
    WHERE (org_id, source_key) NOT IN (SELECT org_id, source_key FROM written_tool)
    UNION
    SELECT org_id, event_id FROM ended_turn
    WHERE (org_id, source_key) NOT IN (SELECT org_id, source_key FROM written_turn)
    UNION
    SELECT org_id, event_id FROM usage
    WHERE (org_id, source_key) NOT IN (SELECT org_id, source_key FROM written_usage)
) AS kept
UNION ALL
SELECT 'gone', NULL, NULL, org_id, event_id::text FROM event WHERE session_id IS NULL
UNION ALL
SELECT 'written', 'tool_calls', count(*), NULL, NULL FROM written_tool
UNION ALL
SELECT 'written', 'turns', count(*), NULL, NULL FROM written_turn
UNION ALL
SELECT 'written', 'capability_usage', count(*), NULL, NULL FROM written_usage
UNION ALL
SELECT 'skipped', skipped, count(*), NULL, NULL FROM record WHERE skipped IS NOT NULL AND NOT $3 GROUP BY skipped
