-- Counts the rows that are due now. Plan: reporting_outbox_due_by_org, which holds what waits alone.
SELECT count(*)
FROM reporting_outbox
WHERE status IN ('pending', 'failed') AND next_attempt_at < 'infinity' AND next_attempt_at <= now()
