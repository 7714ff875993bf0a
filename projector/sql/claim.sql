-- Claims due rows, oldest first.
-- Takes  $1 integer: how many at the most. Gives the rows; `is_uuid` tells whether source_id can be cast to uuid.
-- Locks  the rows it gives, until the transaction ends: the lock is the lease. Rows that others hold are passed over.
-- Plan   an index scan of reporting_outbox_due that ends with the limit; the statuses are literals to match it.
SELECT
    id, org_id, source_type, source_id, attempts,
    source_id ~ '^([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}$' AS is_uuid
FROM reporting_outbox
WHERE status IN ('pending', 'failed') AND next_attempt_at <= now()
ORDER BY next_attempt_at, id
LIMIT $1
FOR UPDATE SKIP LOCKED
