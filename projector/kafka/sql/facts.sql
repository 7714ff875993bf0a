-- What some facts are now, as messages.
--
-- Takes  $1 bigint[] org ids and $2 text[] source keys, in pairs, each once.
-- Gives  a row for each: key: its JSON, always the same for a pair; fact: its columns as JSON, null where there is no such
--        fact; projected_at: when it was written, or now, in ISO 8601.
-- Locks  nothing.
-- Plan   one look at the primary key for each pair.
SELECT
    row_to_json(pair)::text AS key, row_to_json(fact)::text AS fact,
    to_json(COALESCE(fact.projected_at, clock_timestamp())) #>> '{{}}' AS projected_at
FROM unnest($1::bigint[], $2::text[]) AS pair (org_id, source_key)
LEFT JOIN LATERAL (
    SELECT *
    FROM {table} AS stored
    WHERE stored.org_id = pair.org_id AND stored.source_key = pair.source_key
    LIMIT 1
) AS fact ON true
