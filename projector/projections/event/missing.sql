-- The next slice of events, and which of them lack a fact (contract: facts.md). They are append-only: none is stale.
--
-- Takes  $1 text: the key after which to go on, empty for the start; $2 bigint: one org, null for all; $3 and $4
--        timestamptz: created_at from and before, null for any; $5 text: missing, stale or all; $6 integer: how many.
-- Gives  rows (org_id, source_id, created_at, version): what to enqueue; then one row without org_id: its source_id is
--        the key of the slice's last event, its version how many the slice has.
-- Plan   events_pkey from the key on, the session of each event that can give facts, then a probe for each fact. Each
--        probe is a scalar subquery: EXISTS might be answered by hashing a whole fact table.
WITH slice AS MATERIALIZED (
    SELECT e.id, e.session_id, e.event_type, e.data, e.created_at
    FROM events AS e
    WHERE e.id > COALESCE(NULLIF($1::text, ''), '00000000-0000-0000-0000-000000000000')::uuid
    ORDER BY e.id
    LIMIT $6
)
SELECT session.org_id::bigint AS org_id, s.id::text AS source_id, s.created_at, s.id::text AS version
FROM slice AS s
CROSS JOIN LATERAL (SELECT found.org_id FROM sessions AS found WHERE found.id = s.session_id LIMIT 1) AS session
WHERE s.event_type IN (
        'tool.completed', 'turn.completed', 'turn.failed', 'turn.cancelled', 'capability.usage',
        'output.message.replaced'
    )
    AND ($2::bigint IS NULL OR session.org_id = $2)
    AND ($3::timestamptz IS NULL OR s.created_at >= $3) AND ($4::timestamptz IS NULL OR s.created_at < $4)
    AND CASE
        WHEN $5::text = 'all' THEN true
        WHEN s.event_type = 'tool.completed' THEN (
            SELECT f.org_id FROM fact_tool_call AS f
            WHERE f.org_id = session.org_id AND f.source_key = 'event:' || s.id
            LIMIT 1
        ) IS NULL
        OR reporting_capability_id(s.data, 'capability_id') IS NOT NULL AND (
            SELECT f.org_id FROM fact_capability_usage AS f
            WHERE f.org_id = session.org_id AND f.source_key = 'event:' || s.id || ':invoked'
            LIMIT 1
        ) IS NULL
        WHEN s.event_type = 'output.message.replaced'
            THEN reporting_capability_id(s.data, 'guardrail_capability_id') IS NOT NULL AND (
                SELECT f.org_id FROM fact_capability_usage AS f
                WHERE f.org_id = session.org_id AND f.source_key = 'event:' || s.id || ':effect_ran'
                LIMIT 1
            ) IS NULL
        WHEN s.event_type = 'capability.usage' THEN (
            SELECT true
            FROM jsonb_array_elements(
                CASE WHEN jsonb_typeof(s.data -> 'records') = 'array' THEN s.data -> 'records' ELSE '[]' END
            ) WITH ORDINALITY AS given (record, position)
            WHERE reporting_capability_id(given.record, 'capability_id') IS NOT NULL
                AND given.record ->> 'usage_kind' IN ('configured', 'resolved', 'exposed', 'invoked', 'effect_ran')
                AND (
                    SELECT f.org_id FROM fact_capability_usage AS f
                    WHERE f.org_id = session.org_id
                        AND f.source_key = 'event:' || s.id || ':capability_usage:' || given.position
                    LIMIT 1
                ) IS NULL
            LIMIT 1
        ) IS NOT NULL
        ELSE (
            SELECT f.org_id FROM fact_turn AS f
            WHERE f.org_id = session.org_id AND f.source_key = 'event:' || s.id
            LIMIT 1
        ) IS NULL
    END
UNION ALL
SELECT NULL, last.id::text, last.created_at, (SELECT count(*)::text FROM slice)
FROM (SELECT) AS one
LEFT JOIN (SELECT id, created_at FROM slice ORDER BY id DESC LIMIT 1) AS last ON true
