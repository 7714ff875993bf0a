-- Claims due rows of some orgs: of each the oldest ones from a place on.
--
-- Takes  $1 integer: how many of each org at the most; $2 bigint[] org ids, $3 timestamptz[] and $4 uuid[]: for each the
--        next_attempt_at and the id from which on.
-- Gives  the rows as arrays, as claim_fresh.sql does; then a row without a source type for each org that had any: `org_ids`
--        holds the org, `found` how many, `at` and `last_id` the place of the last one.
-- Locks  the rows it gives, until the transaction ends: the lock is the lease. Rows that others hold are passed over.
-- Plan   for each org a range of reporting_outbox_due_by_org that ends with the limit.
WITH picked AS MATERIALIZED (
    SELECT due.*
    FROM unnest($2::bigint[], $3::timestamptz[], $4::uuid[]) AS place (org_id, at, id)
    CROSS JOIN LATERAL (
        SELECT o.ctid AS tid, o.id, o.next_attempt_at, o.org_id, o.source_type, o.source_id, o.attempts
        FROM reporting_outbox AS o
        WHERE o.status IN ('pending', 'failed') AND o.next_attempt_at < 'infinity' AND o.next_attempt_at <= now()
            AND o.org_id = place.org_id AND (o.next_attempt_at, o.id) >= (place.at, place.id)
        ORDER BY o.next_attempt_at, o.id
        LIMIT $1
        FOR UPDATE SKIP LOCKED
    ) AS due
)
SELECT
    source_type, attempts > 0 AS retried, reporting_is_uuid(source_id) AS well_formed, array_agg(tid) AS tids,
    array_agg(org_id) AS org_ids, array_agg(source_id) AS source_ids,
    NULL::bigint AS found, NULL::timestamptz AS at, NULL::uuid AS last_id
FROM picked
GROUP BY 1, 2, 3
UNION ALL
SELECT NULL, NULL, NULL, NULL, ARRAY[org_id], NULL, found, next_attempt_at, id
FROM (
    SELECT
        org_id, next_attempt_at, id, count(*) OVER (PARTITION BY org_id) AS found,
        row_number() OVER (PARTITION BY org_id ORDER BY next_attempt_at DESC, id DESC) AS from_last
    FROM picked
) AS numbered
WHERE from_last = 1
