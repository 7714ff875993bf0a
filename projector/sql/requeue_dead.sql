-- Requeues dead letters: pending, due now, with all attempts before them.
-- Takes  $1 text source type, or null for all; $2 integer how many at the most. Gives the count.
-- Plan   reporting_outbox_due at its end, where the dead letters are.
WITH dead AS (
    SELECT id
    FROM reporting_outbox
    WHERE status = 'failed' AND next_attempt_at = 'infinity' AND ($1::text IS NULL OR source_type = $1)
    ORDER BY next_attempt_at, id
    LIMIT $2
    FOR UPDATE SKIP LOCKED
),
requeued AS (
    UPDATE reporting_outbox AS o
    SET status = 'pending', attempts = 0, next_attempt_at = now(), last_error = NULL, updated_at = now()
    FROM dead
    WHERE o.id = dead.id
    RETURNING 1
)
SELECT count(*) FROM requeued
