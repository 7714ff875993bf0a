-- The latest failed rows, dead letters included.
-- Takes  $1 integer: how many at the most. Plan: reporting_outbox_failed, backwards, ending with the limit.
SELECT id, org_id, source_type, source_id, attempts, last_error, updated_at, next_attempt_at = 'infinity' AS dead
FROM reporting_outbox
WHERE status = 'failed'
ORDER BY updated_at DESC, id DESC
LIMIT $1
