-- Claims due rows of one org, oldest first.
-- Takes  $1 integer: how many at the most; $2 bigint: the org. Gives the rows as claim.sql does.
-- Locks  the rows it gives, until the transaction ends: the lock is the lease. Rows that others hold are passed over.
-- Plan   an index scan of reporting_outbox_due_by_org that ends with the limit; the conditions are literals to match it.
SELECT
    id, org_id, source_type, source_id, attempts,
    source_id ~ '^([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}$' AS is_uuid
FROM reporting_outbox
WHERE status IN ('pending', 'failed') AND next_attempt_at < 'infinity' AND next_attempt_at <= now() AND org_id = $2
ORDER BY next_attempt_at, id
LIMIT $1
FOR UPDATE SKIP LOCKED
