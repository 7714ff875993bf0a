-- Settles one row as completed.
-- Takes  $1 uuid outbox row id.
UPDATE reporting_outbox
SET status = 'completed', last_error = NULL, claimed_at = NULL, updated_at = now()
WHERE id = $1
