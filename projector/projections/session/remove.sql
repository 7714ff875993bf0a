-- Removes all facts of sessions that are gone: their state and their configured capabilities.
-- Takes $1 bigint[] org ids and $2 text[] session ids, in pairs. Gives the count of facts removed, by dataset.
WITH input AS MATERIALIZED (
    SELECT DISTINCT given.org_id, given.source_id::uuid AS session_id
    FROM unnest($1::bigint[], $2::text[]) AS given (org_id, source_id)
),
stale AS MATERIALIZED (
    SELECT f.org_id, f.source_key
    FROM input AS i
    CROSS JOIN LATERAL (
        SELECT f.org_id, f.source_key
        FROM fact_capability_usage AS f
        WHERE f.org_id = i.org_id AND f.session_id = i.session_id AND f.capability_usage_kind = 'configured'
            AND starts_with(f.source_key, 'session:')
        OFFSET 0
    ) AS f
),
removed_session AS (
    DELETE FROM fact_session AS f USING input AS i
    WHERE f.org_id = i.org_id AND f.source_key = 'session:' || i.session_id
    RETURNING 1
),
removed_usage AS (
    DELETE FROM fact_capability_usage AS f USING stale
    WHERE f.org_id = stale.org_id AND f.source_key = stale.source_key
    RETURNING 1
)
SELECT 'sessions' AS name, count(*) AS count FROM removed_session
UNION ALL
SELECT 'capability_usage', count(*) FROM removed_usage
