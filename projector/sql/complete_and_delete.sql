-- Settles claimed rows as completed where completed rows are not kept: deletes them.
-- Takes, gives and plan as complete.sql.
WITH settled AS (
    DELETE FROM reporting_outbox
    WHERE ctid = ANY ($1::tid[])
    RETURNING source_type, GREATEST(date_part('epoch', clock_timestamp() - created_at), 0) AS delay
)
SELECT source_type, width_bucket(delay, $2::float8[]) AS bucket, count(*) AS rows, sum(delay) AS seconds
FROM settled
GROUP BY source_type, bucket
