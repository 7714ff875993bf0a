-- Counts what is not completed of one org. Takes $1 bigint org.
-- Gives  pending, processing, failed (dead letters included), oldest_pending_at: when the oldest pending row was created.
-- Plan   the partial indexes, which hold no completed row; costs what the org has waiting, and the leases of all.
SELECT
    waiting.pending, leased.processing, waiting.failed + dead.letters AS failed, waiting.oldest_pending_at
FROM (
    SELECT
        count(*) FILTER (WHERE status = 'pending') AS pending, count(*) FILTER (WHERE status = 'failed') AS failed,
        min(created_at) FILTER (WHERE status = 'pending') AS oldest_pending_at
    FROM reporting_outbox
    WHERE status IN ('pending', 'failed') AND next_attempt_at < 'infinity' AND org_id = $1
) AS waiting
CROSS JOIN (
    SELECT count(*) AS letters
    FROM reporting_outbox
    WHERE status = 'failed' AND next_attempt_at = 'infinity' AND org_id = $1
) AS dead
CROSS JOIN (
    SELECT count(*) AS processing FROM reporting_outbox WHERE status = 'processing' AND org_id = $1
) AS leased
