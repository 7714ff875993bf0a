-- How many rows are completed: exactly while the table is small, else estimated from the server's statistics.
-- Takes  $1 bigint: rows known not to be completed. Gives rows, and whether they are an estimate.
-- Cost   a scan of at most 16 MB, or a look at the statistics.
SELECT
    CASE
        WHEN size.bytes <= 16777216 THEN (SELECT count(*) FROM reporting_outbox WHERE status = 'completed')
        ELSE GREATEST(COALESCE(NULLIF(pg_stat_get_live_tuples(class.oid), 0), class.reltuples::bigint) - $1::bigint, 0)
    END AS rows,
    size.bytes > 16777216 AS estimated
FROM pg_class AS class
CROSS JOIN LATERAL (SELECT pg_relation_size(class.oid) AS bytes) AS size
WHERE class.oid = 'reporting_outbox'::regclass
