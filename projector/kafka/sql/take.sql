-- The next changes to publish, oldest first.
--
-- Takes  $1 bigint: changes behind this seq; $2 text[]: the datasets that can be published; $3 integer: how many changes at
--        the most; $4 integer: after how many facts to stop.
-- Gives  seq, dataset, org_ids, source_keys; the first one however many facts it is about.
-- Locks  nothing: only one process publishes at a time (acquire.sql).
-- Plan   a range of the primary key that ends with the limit. It begins where the last one ended, so dead entries below,
--        which a long transaction elsewhere keeps from vacuum, are not walked again and again.
SELECT seq, dataset, org_ids, source_keys
FROM (
    SELECT *, sum(cardinality(source_keys)) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) - cardinality(source_keys) AS before
    FROM (
        SELECT seq, dataset, org_ids, source_keys
        FROM reporting_fact_changes
        WHERE seq > $1::bigint AND dataset = ANY ($2::text[])
        ORDER BY seq
        LIMIT $3::integer
    ) AS next
) AS counted
WHERE before < $4::integer
ORDER BY seq
