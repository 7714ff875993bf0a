-- Creates a session and enqueues it.
-- Takes: $1 org, $2 principal, $3 user, $4 agent, $5 harness, $6 app, $7 blueprint, $8 capabilities (JSON).
-- Gives: the session's id and how many outbox rows were written.
-- The version is written as chrono's to_rfc3339 does: 0, 3 or 6 digits of fraction, then +00:00.
WITH written AS (
    INSERT INTO sessions (org_id, owner_principal_id, resolved_owner_user_id, agent_id, harness_id, app_id,
                          blueprint_id, capabilities)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    RETURNING id, org_id, updated_at
), enqueued AS (
    INSERT INTO reporting_outbox AS outbox (org_id, source_type, source_id, source_version, reason)
    SELECT org_id, 'session', id::text,
           regexp_replace(to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '(\.000000|000)$', '')
               || '+00:00',
           'session_snapshot'
    FROM written
    ON CONFLICT (org_id, source_type, source_id, source_version, reason) DO UPDATE
    SET status = CASE outbox.status WHEN 'completed' THEN 'pending' ELSE outbox.status END,
        next_attempt_at = now(),
        updated_at = now()
    RETURNING 1
)
SELECT id, (SELECT count(*) FROM enqueued) AS enqueued FROM written;
