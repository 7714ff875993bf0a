-- How many rows of one org there are, of any status, but no further than it is asked for.
-- Takes  $1 bigint org; $2 bigint the most to count. Plan: the outbox's unique index.
SELECT count(*) FROM (SELECT 1 FROM reporting_outbox WHERE org_id = $1 LIMIT $2) AS first
