-- Claims rows that have been due for some time, of any org, oldest first.
--
-- Takes  $1 integer: how many at the most; $2 float8: for how many seconds; $3 timestamptz, null for the bottom, and $4
--        uuid: rows behind this next_attempt_at and id.
-- Gives  the rows as arrays, as claim_fresh.sql does; then a row without a source type: `at` and `last_id` are the place of
--        the last row, null where there was none.
-- Locks  the rows it gives, until the transaction ends: the lock is the lease. Rows that others hold are passed over.
-- Plan   a range of reporting_outbox_due that ends with the limit; the conditions are literals to match that index.
WITH picked AS MATERIALIZED (
    SELECT ctid AS tid, id, next_attempt_at, org_id, source_type, source_id, attempts
    FROM reporting_outbox
    WHERE status IN ('pending', 'failed') AND next_attempt_at < 'infinity'
        AND next_attempt_at <= now() - interval '1 second' * $2::float8
        AND attempts >= 0
        AND (next_attempt_at, id) > (COALESCE($3::timestamptz, '-infinity'), $4::uuid)
    ORDER BY next_attempt_at, id
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
SELECT
    source_type, attempts > 0 AS retried, reporting_is_uuid(source_id) AS well_formed, array_agg(tid) AS tids,
    array_agg(org_id) AS org_ids, array_agg(source_id) AS source_ids,
    NULL::timestamptz AS at, NULL::uuid AS last_id
FROM picked
GROUP BY 1, 2, 3
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, last.next_attempt_at, last.id
FROM (SELECT) AS look
LEFT JOIN (SELECT next_attempt_at, id FROM picked ORDER BY next_attempt_at DESC, id DESC LIMIT 1) AS last ON true
