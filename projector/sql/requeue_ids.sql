-- Requeues failed rows by id: pending, due now, with all attempts before them.
-- Takes  $1 uuid[] ids; $2 bigint org, or null for any; $3 integer how many at the most. Gives the count. Plan: the primary key.
WITH requeued AS (
    UPDATE reporting_outbox
    SET status = 'pending', attempts = 0, next_attempt_at = now(), last_error = NULL, updated_at = now()
    WHERE status = 'failed' AND id = ANY (
        ARRAY(
            SELECT id
            FROM reporting_outbox
            WHERE id = ANY ($1::uuid[]) AND status = 'failed' AND ($2::bigint IS NULL OR org_id = $2)
            LIMIT $3
        )
    )
    RETURNING 1
)
SELECT count(*) FROM requeued
