-- Counts dead letters, but no further than it is asked for.
-- Takes  $1 text source type, or null for all; $2 bigint org, or null for all; $3 integer the most to count.
-- Plan   reporting_outbox_failed or reporting_outbox_failed_by_org, which hold failed rows alone.
SELECT count(*)
FROM (
    SELECT 1
    FROM reporting_outbox
    WHERE status = 'failed' AND next_attempt_at = 'infinity' AND ($1::text IS NULL OR source_type = $1)
        AND ($2::bigint IS NULL OR org_id = $2)
    LIMIT $3
) AS dead
