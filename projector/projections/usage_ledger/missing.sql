-- The next slice of ledger rows, and which of them lack a fact (contract: facts.md). They are append-only: none is stale.
--
-- Takes  $1 text: the key after which to go on, empty for the start; $2 bigint: one org, null for all; $3 and $4
--        timestamptz: created_at from and before, null for any; $5 text: missing, stale or all; $6 integer: how many.
-- Gives  rows (org_id, source_id, created_at, version): what to enqueue; then one row without org_id: its source_id is
--        the key of the slice's last row, its version how many the slice has.
-- Plan   usage_ledger_pkey from the key on, then a probe of the facts for each.
WITH slice AS MATERIALIZED (
    SELECT l.id, l.org_id, l.created_at
    FROM usage_ledger AS l
    WHERE l.id > COALESCE(NULLIF($1::text, ''), '00000000-0000-0000-0000-000000000000')::uuid
    ORDER BY l.id
    LIMIT $6
)
SELECT s.org_id::bigint AS org_id, s.id::text AS source_id, s.created_at, s.id::text AS version
FROM slice AS s
LEFT JOIN LATERAL (
    SELECT f.org_id
    FROM fact_budget_posting AS f
    WHERE f.org_id = s.org_id AND f.source_key = 'usage_ledger:' || s.id
    LIMIT 1
) AS fact ON true
WHERE ($2::bigint IS NULL OR s.org_id = $2)
    AND ($3::timestamptz IS NULL OR s.created_at >= $3) AND ($4::timestamptz IS NULL OR s.created_at < $4)
    AND ($5::text = 'all' OR fact.org_id IS NULL)
UNION ALL
SELECT NULL, last.id::text, last.created_at, (SELECT count(*)::text FROM slice)
FROM (SELECT) AS one
LEFT JOIN (SELECT id, created_at FROM slice ORDER BY id DESC LIMIT 1) AS last ON true
