-- When one org's latest fact of one table was written: {table} stands for a name from the registry.
-- Takes  $1 bigint org. Plan: the last entry of the table's index on (org_id, projected_at).
SELECT max(projected_at) FROM {table} WHERE org_id = $1
