-- Counts the rows that are due now. Plan: reporting_outbox_due up to now.
SELECT count(*) FROM reporting_outbox WHERE status IN ('pending', 'failed') AND next_attempt_at <= now()
