-- What jobs are made of: the outbox's first rows, in the order in which the baseline takes them.
-- Takes  $1 integer: how many. Gives rows (org_id, source_type, source_id).
-- Plan   none that matters; it is read before the clock starts.
SELECT org_id, source_type, source_id
FROM reporting_outbox
ORDER BY next_attempt_at, id
LIMIT $1
