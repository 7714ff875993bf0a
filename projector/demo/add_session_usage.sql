-- Adds usage to a session and enqueues the state that results.
-- Takes: $1 session, then tokens to add: $2 input, $3 output, $4 cache read, $5 cache creation.
-- Gives: how many outbox rows were written.
WITH changed AS (
    UPDATE sessions
    SET total_input_tokens = total_input_tokens + $2,
        total_output_tokens = total_output_tokens + $3,
        total_cache_read_tokens = total_cache_read_tokens + $4,
        total_cache_creation_tokens = total_cache_creation_tokens + $5
    WHERE id = $1
    RETURNING id, org_id, updated_at
), enqueued AS (
    INSERT INTO reporting_outbox AS outbox (org_id, source_type, source_id, source_version, reason)
    SELECT org_id, 'session', id::text,
           regexp_replace(to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '(\.000000|000)$', '')
               || '+00:00',
           'session_snapshot'
    FROM changed
    ON CONFLICT (org_id, source_type, source_id, source_version, reason) DO UPDATE
    SET status = CASE outbox.status WHEN 'completed' THEN 'pending' ELSE outbox.status END,
        next_attempt_at = now(),
        updated_at = now()
    RETURNING 1
)
SELECT count(*) FROM enqueued;
