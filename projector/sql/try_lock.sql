-- Takes the session-level advisory lock of the backfills of one org, or of all. Gives whether nobody else holds it.
-- Takes  $1 bigint org id, or null for all; $2 bigint the lock of those of all.
SELECT pg_try_advisory_lock(COALESCE(hashtextextended('reporting_backfill:' || $1::bigint, 0), $2::bigint))
