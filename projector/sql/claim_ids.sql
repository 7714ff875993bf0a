-- Claims rows by their ids, as messages name them: those that are due, and those that are leased.
--
-- Takes  $1 uuid[] ids; unknown ones and repeated ones do no harm.
-- Gives  the rows as arrays, as claim_fresh.sql does.
-- Locks  the rows it gives, until the transaction ends: the lock is the lease. Rows that others hold are passed over.
-- Left   are completed rows, and rows that are put off or dead: a message does not make them due any sooner.
-- Plan   reporting_outbox_pkey, an entry for each id.
WITH picked AS MATERIALIZED (
    SELECT ctid AS tid, org_id, source_type, source_id, attempts
    FROM reporting_outbox
    WHERE id = ANY ($1::uuid[])
        AND (status = 'processing' OR status IN ('pending', 'failed') AND next_attempt_at <= now())
    FOR UPDATE SKIP LOCKED
)
SELECT
    source_type, attempts > 0 AS retried, reporting_is_uuid(source_id) AS well_formed, array_agg(tid) AS tids,
    array_agg(org_id) AS org_ids, array_agg(source_id) AS source_ids
FROM picked
GROUP BY 1, 2, 3
