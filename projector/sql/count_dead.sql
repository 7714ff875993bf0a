-- Counts dead letters. Takes $1 text source type, or null for all. Plan: reporting_outbox_due at its end.
SELECT count(*)
FROM reporting_outbox
WHERE status = 'failed' AND next_attempt_at = 'infinity' AND ($1::text IS NULL OR source_type = $1)
