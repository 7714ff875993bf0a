-- Counts what is not completed, by source type and status; dead letters apart.
-- Gives  source_type, status (pending, failed, dead, processing), rows, oldest_due_at: since when the oldest of them
--        could have been claimed, null where none is due; created_at of the oldest of them.
-- Plan   the partial indexes, which hold no completed row; costs what waits, never what is done.
SELECT
    source_type, status, count(*) AS rows,
    min(next_attempt_at) FILTER (WHERE next_attempt_at <= now()) AS oldest_due_at, min(created_at) AS created_at
FROM reporting_outbox
WHERE status IN ('pending', 'failed') AND next_attempt_at < 'infinity'
GROUP BY 1, 2
UNION ALL
SELECT source_type, 'dead', count(*), NULL, NULL
FROM reporting_outbox
WHERE status = 'failed' AND next_attempt_at = 'infinity'
GROUP BY source_type
UNION ALL
SELECT source_type, 'processing', count(*), NULL, NULL
FROM reporting_outbox
WHERE status = 'processing'
GROUP BY source_type
