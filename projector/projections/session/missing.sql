-- The next slice of sessions, and which of them lack a fact, or hold a stale one (contract: facts.md).
--
-- Takes  $1 text: the key after which to go on, empty for the start; $2 bigint: one org, null for all; $3 and $4
--        timestamptz: created_at from and before, null for any; $5 text: missing, stale or all; $6 integer: how many.
-- Gives  rows (org_id, source_id, created_at, version): what to enqueue, the version being updated_at as outbox.md writes
--        it; then one row without org_id: its source_id is the key of the slice's last session, its version how many the
--        slice has. A key is created_at and id: ids of sessions need not be in the order of time.
-- Stale  where the session has changed since, its agent or harness has another name, or a capability that it is no longer
--        configured with still has a fact. What is configured anew is missing.
-- Plan   sessions_created_at from the key on, then probes of the facts and of what is configured, for each.
WITH slice AS MATERIALIZED (
    SELECT
        s.id, s.org_id, s.created_at, s.updated_at, s.agent_id, s.harness_id, s.capabilities, s.status, s.finished_at,
        s.turn_count, s.tool_call_count
    FROM sessions AS s
    WHERE (s.created_at, s.id) > (
            COALESCE(NULLIF(split_part($1::text, '|', 1), ''), '-infinity')::timestamptz,
            COALESCE(NULLIF(split_part($1, '|', 2), ''), '00000000-0000-0000-0000-000000000000')::uuid
        )
    ORDER BY s.created_at, s.id
    LIMIT $6
)
SELECT
    s.org_id::bigint AS org_id, s.id::text AS source_id, s.created_at,
    COALESCE(
        to_char(s.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
        || CASE
            WHEN date_trunc('second', s.updated_at) = s.updated_at THEN ''
            WHEN date_trunc('milliseconds', s.updated_at) = s.updated_at
                THEN to_char(s.updated_at AT TIME ZONE 'UTC', '.MS')
            ELSE to_char(s.updated_at AT TIME ZONE 'UTC', '.US')
        END
        || 'Z',
        ''
    ) AS version
FROM slice AS s
LEFT JOIN LATERAL (
    SELECT a.id, a.name::text AS name FROM agents AS a WHERE a.id = s.agent_id AND a.org_id = s.org_id LIMIT 1
) AS agent ON true
LEFT JOIN LATERAL (
    SELECT h.id, h.name::text AS name FROM harnesses AS h WHERE h.id = s.harness_id AND h.org_id = s.org_id LIMIT 1
) AS harness ON true
LEFT JOIN LATERAL (
    SELECT
        f.org_id, f.last_active_at, f.session_status, f.finished_at, f.turn_count, f.tool_call_count,
        f.agent_name_snapshot, f.harness_name_snapshot
    FROM fact_session AS f
    WHERE f.org_id = s.org_id AND f.source_key = 'session:' || s.id
    LIMIT 1
) AS fact ON true
-- The keys of the facts that there should be, and of those that there are.
CROSS JOIN LATERAL (
    SELECT array_agg('session:' || s.id || ':configured:' || listed.scope || ':' || reporting_fit(listed.id)) AS keys
    FROM (
        SELECT 'agent' AS scope, c.capability_id::text AS id FROM agent_capabilities AS c WHERE c.agent_id = agent.id
        UNION ALL
        SELECT 'harness', c.capability_id::text FROM harness_capabilities AS c WHERE c.harness_id = harness.id
        UNION ALL
        SELECT
            'session',
            CASE jsonb_typeof(element)
                WHEN 'object' THEN reporting_capability_id(element, 'ref')
                WHEN 'string' THEN element #>> '{}'
            END
        FROM jsonb_array_elements(
            CASE WHEN jsonb_typeof(s.capabilities) = 'array' THEN s.capabilities ELSE '[]' END
        ) AS given (element)
    ) AS listed
    WHERE listed.id <> ''
) AS configured
CROSS JOIN LATERAL (
    SELECT array_agg(f.source_key) AS keys
    FROM fact_capability_usage AS f
    WHERE f.org_id = s.org_id AND f.session_id = s.id AND f.capability_usage_kind = 'configured'
        AND starts_with(f.source_key, 'session:')
) AS kept
WHERE ($2::bigint IS NULL OR s.org_id = $2)
    AND ($3::timestamptz IS NULL OR s.created_at >= $3) AND ($4::timestamptz IS NULL OR s.created_at < $4)
    AND CASE
        WHEN $5::text = 'all' OR fact.org_id IS NULL THEN true
        WHEN NOT COALESCE(configured.keys, '{}') <@ COALESCE(kept.keys, '{}') THEN true
        WHEN $5 = 'stale'
            THEN NOT COALESCE(kept.keys, '{}') <@ COALESCE(configured.keys, '{}')
                OR (
                    s.updated_at, reporting_fit(s.status::text), s.finished_at, s.turn_count::bigint,
                    s.tool_call_count::bigint, agent.name, harness.name
                ) IS DISTINCT FROM (
                    fact.last_active_at, fact.session_status, fact.finished_at, fact.turn_count,
                    fact.tool_call_count, fact.agent_name_snapshot, fact.harness_name_snapshot
                )
        ELSE false
    END
UNION ALL
SELECT NULL, last.created_at || '|' || last.id, last.created_at, (SELECT count(*)::text FROM slice)
FROM (SELECT) AS one
LEFT JOIN (SELECT id, created_at FROM slice ORDER BY created_at DESC, id DESC LIMIT 1) AS last ON true
