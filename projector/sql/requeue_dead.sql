-- Requeues dead letters, the oldest failures first: pending, due now, with all attempts before them.
-- Takes  $1 text source type, or null for all; $2 bigint org, or null for all; $3 integer how many at the most;
--        $4 timestamptz and $5 uuid: updated_at and id after which to go on, where the slice before ended.
-- Gives  how many, and updated_at and id of the last one; nothing where there was none.
-- Plan   reporting_outbox_failed from the key on: rows that were requeued are not walked again.
WITH dead AS MATERIALIZED (
    SELECT id, updated_at
    FROM reporting_outbox
    WHERE status = 'failed' AND next_attempt_at = 'infinity' AND ($1::text IS NULL OR source_type = $1)
        AND ($2::bigint IS NULL OR org_id = $2) AND (updated_at, id) > ($4::timestamptz, $5::uuid)
    ORDER BY updated_at, id
    LIMIT $3
    FOR UPDATE SKIP LOCKED
),
requeued AS (
    UPDATE reporting_outbox AS o
    SET status = 'pending', attempts = 0, next_attempt_at = now(), last_error = NULL, updated_at = now()
    WHERE o.id = ANY (ARRAY(SELECT id FROM dead))
    RETURNING 1
)
SELECT (SELECT count(*) FROM requeued) AS rows, updated_at, id
FROM dead
ORDER BY updated_at DESC, id DESC
LIMIT 1
