-- When each org's latest fact of one table was written, and the latest of all.
-- Takes  {table}, a name from the registry, and {place}, where it stands there; one such statement for each table makes up
--        the whole, by UNION ALL.
-- Gives  a row (place, at): the time is null where the table is empty.
-- Plan   for each org the last entry of the table's index on (org_id, projected_at).
SELECT {place} AS place, max(latest.projected_at) AS at
FROM organizations AS o
CROSS JOIN LATERAL (
    SELECT f.projected_at
    FROM {table} AS f
    WHERE f.org_id = o.org_id
    ORDER BY f.org_id DESC, f.projected_at DESC
    LIMIT 1
) AS latest
