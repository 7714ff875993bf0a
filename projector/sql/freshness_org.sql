-- When one org's latest fact of one table was written.
-- Takes  {table}, {place} as in freshness.sql; $1 bigint org.
-- Gives  a row (place, at), as there.
-- Plan   the last entry of the table's index on (org_id, projected_at).
SELECT {place} AS place, max(projected_at) AS at FROM {table} WHERE org_id = $1
