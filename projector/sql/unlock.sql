-- Releases what try_lock.sql took; the same parameters.
SELECT pg_advisory_unlock(COALESCE(hashtextextended('reporting_backfill:' || $1::bigint, 0), $2::bigint))
