-- When each org's latest fact of one table was written, and the latest of all: {table} stands for a name from the
-- registry.
-- Plan   for each org the last entry of the table's index on (org_id, projected_at).
SELECT max(latest.projected_at)
FROM organizations AS o
CROSS JOIN LATERAL (
    SELECT f.projected_at
    FROM {table} AS f
    WHERE f.org_id = o.org_id
    ORDER BY f.org_id DESC, f.projected_at DESC
    LIMIT 1
) AS latest
