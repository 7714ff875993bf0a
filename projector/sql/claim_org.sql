-- Claims due rows of one org, oldest first.
-- Takes  $1 integer: how many at the most; $2 bigint: the org. Gives the rows as arrays, as claim_fresh.sql does.
-- Locks  the rows it gives, until the transaction ends: the lock is the lease. Rows that others hold are passed over.
-- Plan   a range of reporting_outbox_due_by_org that ends with the limit; the conditions are literals to match it.
WITH picked AS MATERIALIZED (
    SELECT ctid AS tid, org_id, source_type, source_id, attempts
    FROM reporting_outbox
    WHERE status IN ('pending', 'failed') AND next_attempt_at < 'infinity' AND next_attempt_at <= now() AND org_id = $2
    ORDER BY next_attempt_at, id
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
SELECT
    source_type, attempts > 0 AS retried, reporting_is_uuid(source_id) AS well_formed, array_agg(tid) AS tids,
    array_agg(org_id) AS org_ids, array_agg(source_id) AS source_ids
FROM picked
GROUP BY 1, 2, 3
