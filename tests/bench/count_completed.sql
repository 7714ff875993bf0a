-- How many outbox rows are completed, exactly. Takes nothing. Plan: the whole outbox, so only where it stays small.
SELECT count(*) FROM reporting_outbox WHERE status = 'completed'
