-- Counts what is not completed of one org, each part no further than it is asked for.
-- Takes  $1 bigint: how many rows to read of each part; $2 bigint org.
-- Gives  for pending, failed (dead letters included) and processing each a row: status, rows, created_at of the oldest of
--        them (pending alone), beyond: whether there may be more, so that rows are but the first ones.
-- Plan   the partial indexes, which hold no completed row, each ending with the limit. Leases are read of all orgs.
--        The org is a range, so that the order is that of its own index alone, not of the one for all orgs as well.
WITH waiting AS MATERIALIZED (
    SELECT status, created_at
    FROM reporting_outbox
    WHERE status IN ('pending', 'failed') AND next_attempt_at < 'infinity' AND org_id BETWEEN $2 AND $2
    ORDER BY org_id, next_attempt_at, id
    LIMIT $1
),
failed AS MATERIALIZED (
    SELECT 1
    FROM reporting_outbox
    WHERE status = 'failed' AND org_id BETWEEN $2 AND $2
    ORDER BY org_id, updated_at, id
    LIMIT $1
),
leased AS MATERIALIZED (
    SELECT org_id
    FROM reporting_outbox
    WHERE status = 'processing'
    ORDER BY claimed_at
    LIMIT $1
)
SELECT
    'pending' AS status, count(*) FILTER (WHERE status = 'pending') AS rows,
    min(created_at) FILTER (WHERE status = 'pending') AS created_at, count(*) = $1 AS beyond
FROM waiting
UNION ALL
SELECT 'failed', count(*), NULL, count(*) = $1 FROM failed
UNION ALL
SELECT 'processing', count(*) FILTER (WHERE org_id = $2), NULL, count(*) = $1 FROM leased
