-- Leases due rows, oldest first, by a status of their own: committed at once, so that other workers pass them over.
-- Takes  $1 integer: how many at the most. Gives the rows, in no order.
-- Plan   baseline_due, which ends with the limit.
UPDATE reporting_outbox
SET status = 'processing', attempts = attempts + 1, claimed_at = now(), updated_at = now()
WHERE id IN (
    SELECT id
    FROM reporting_outbox
    WHERE status IN ('pending', 'failed') AND next_attempt_at <= now()
    ORDER BY next_attempt_at, id
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
RETURNING id, org_id, source_type, source_id
