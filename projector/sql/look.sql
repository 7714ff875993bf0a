-- Looks at the next slice of a projection's sources: those that lack a fact and do not wait in the outbox already, oldest
-- first. In braces stands where the projection's missing.sql is put in.
--
-- Takes  $1 to $6 as missing.sql does; $7 text source type; $8 text reason; $9 boolean: whether sources have versions.
-- Gives  rows (org_id, source_id, version, is_final): what to enqueue, with the version that its outbox row has (outbox.md);
--        then the last row of missing.sql: is_final tells whether the slice's last source is so old that nothing is
--        committed before it any more: by then transactions have lasted for ten minutes, twice over, as what is younger
--        may stand before what is older by as much as its own transaction took.
-- Plan   that of missing.sql, then the outbox's unique index for each source that it gives, by an aggregate that cannot
--        become a join with the whole outbox.
--
-- One statement, hence one snapshot: projecting commits a fact and its settled row at once, so whatever is projected
-- meanwhile is seen as missing and waiting, or as neither.
WITH given AS MATERIALIZED (
{missing}
)
SELECT g.org_id, g.source_id, CASE WHEN $9 THEN COALESCE(known.newest, g.version) ELSE g.version END AS version,
    g.created_at < now() - interval '20 minutes' AS is_final
FROM given AS g
CROSS JOIN LATERAL (
    SELECT
        bool_or(o.status <> 'completed') AS waits,
        (array_agg(o.source_version ORDER BY o.created_at DESC, o.id DESC) FILTER (WHERE o.reason = $8))[1] AS newest
    -- Planned apart: for the order above, and a table that was empty when it was vacuumed, the whole key might be read.
    FROM (
        SELECT w.id, w.status, w.source_version, w.reason, w.created_at
        FROM reporting_outbox AS w
        WHERE w.org_id = g.org_id AND w.source_type = $7 AND w.source_id = g.source_id
        OFFSET 0
    ) AS o
) AS known
WHERE known.waits IS NOT TRUE
ORDER BY g.org_id IS NULL, g.created_at, g.source_id
