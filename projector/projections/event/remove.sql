-- Removes all facts of events that are gone.
-- Takes $1 bigint[] org ids and $2 text[] event ids, in pairs. Gives the count of facts removed, by dataset.
WITH input AS MATERIALIZED (
    SELECT DISTINCT given.org_id, given.source_id::uuid AS event_id
    FROM unnest($1::bigint[], $2::text[]) AS given (org_id, source_id)
),
stale AS MATERIALIZED (
    SELECT f.org_id, f.source_key
    FROM input AS i
    CROSS JOIN LATERAL (
        SELECT f.org_id, f.source_key
        FROM fact_capability_usage AS f
        WHERE f.org_id = i.org_id
            AND f.source_key ~>=~ ('event:' || i.event_id || ':') AND f.source_key ~<~ ('event:' || i.event_id || ';')
        OFFSET 0
    ) AS f
),
removed_tool AS (
    DELETE FROM fact_tool_call AS f USING input AS i
    WHERE f.org_id = i.org_id AND f.source_key = 'event:' || i.event_id
    RETURNING 1
),
removed_turn AS (
    DELETE FROM fact_turn AS f USING input AS i
    WHERE f.org_id = i.org_id AND f.source_key = 'event:' || i.event_id
    RETURNING 1
),
removed_usage AS (
    DELETE FROM fact_capability_usage AS f USING stale
    WHERE f.org_id = stale.org_id AND f.source_key = stale.source_key
    RETURNING 1
)
SELECT 'tool_calls' AS name, count(*) AS count FROM removed_tool
UNION ALL
SELECT 'turns', count(*) FROM removed_turn
UNION ALL
SELECT 'capability_usage', count(*) FROM removed_usage
