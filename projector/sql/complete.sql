-- Settles claimed rows as completed.
-- Takes  $1 tid[]: where the rows are, which their locks keep as it is; $2 float8[] ascending bounds in seconds.
-- Gives  by source type and bucket (0 is below the first bound, n below the next): how many rows, and the sum of their
--        delays, each from created_at to now, in seconds.
-- Plan   a TID scan.
WITH settled AS (
    UPDATE reporting_outbox
    SET status = 'completed', last_error = NULL, claimed_at = NULL, updated_at = now()
    WHERE ctid = ANY ($1::tid[])
    RETURNING source_type, GREATEST(date_part('epoch', clock_timestamp() - created_at), 0) AS delay
)
SELECT source_type, width_bucket(delay, $2::float8[]) AS bucket, count(*) AS rows, sum(delay) AS seconds
FROM settled
GROUP BY source_type, bucket
