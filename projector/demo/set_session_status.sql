-- Moves a session's status. Enqueues nothing: the application does not either.
-- Takes: $1 session, $2 status, $3 whether the session ends with it.
UPDATE sessions
SET status = $2,
    started_at = coalesce(started_at, now()),
    finished_at = CASE WHEN $3::boolean THEN now() ELSE finished_at END
WHERE id = $1;
