-- Counts what is not completed, by source type and status, dead letters apart; each part no further than it is asked for.
-- Takes  $1 bigint: how many rows to read of each part.
-- Gives  source_type, status (pending, failed, dead, processing), rows, oldest_due_at: since when the oldest of them
--        could have been claimed, null where none is due; created_at of the oldest of them; unsure: the statuses of which
--        there may be more, as their part was not read to its end, else null. Failed rows come twice: with rows from among
--        all failed ones, dead letters and not; with oldest_due_at and no rows from among those that wait.
-- Plan   the partial indexes, which hold no completed row, each from its begin and ending with the limit.
WITH waiting AS MATERIALIZED (
    SELECT source_type, status, next_attempt_at, created_at
    FROM reporting_outbox
    WHERE status IN ('pending', 'failed') AND next_attempt_at < 'infinity' AND attempts >= 0
    ORDER BY next_attempt_at, id
    LIMIT $1
),
failed AS MATERIALIZED (
    SELECT source_type, next_attempt_at
    FROM reporting_outbox
    WHERE status = 'failed'
    ORDER BY updated_at, id
    LIMIT $1
),
leased AS MATERIALIZED (
    SELECT source_type
    FROM reporting_outbox
    WHERE status = 'processing'
    ORDER BY claimed_at
    LIMIT $1
)
SELECT
    source_type, status, CASE status WHEN 'pending' THEN count(*) ELSE 0 END AS rows,
    min(next_attempt_at) FILTER (WHERE next_attempt_at <= now()) AS oldest_due_at, min(created_at) AS created_at,
    CASE WHEN (SELECT count(*) FROM waiting) = $1 THEN ARRAY['pending'] END AS unsure
FROM waiting
GROUP BY source_type, status
UNION ALL
SELECT
    source_type, CASE next_attempt_at WHEN 'infinity' THEN 'dead' ELSE 'failed' END AS kind, count(*), NULL, NULL,
    CASE WHEN (SELECT count(*) FROM failed) = $1 THEN ARRAY['failed', 'dead'] END
FROM failed
GROUP BY source_type, kind
UNION ALL
SELECT
    source_type, 'processing', count(*), NULL, NULL,
    CASE WHEN (SELECT count(*) FROM leased) = $1 THEN ARRAY['processing'] END
FROM leased
GROUP BY source_type
