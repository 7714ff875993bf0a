-- The outbox and who is connected. Takes $1 text[]: the application names of the programs.
-- Gives  one row: lag_seconds (age of the oldest due row, a backfilled one's from when it was enqueued), waiting, rows,
--        bytes (the outbox with its indexes), connections. Reads the whole outbox, which the retention keeps small.
SELECT
    COALESCE(
        extract(epoch FROM max(clock_timestamp() - GREATEST(next_attempt_at, updated_at)) FILTER (
            WHERE status IN ('pending', 'failed') AND next_attempt_at <= clock_timestamp()
        )),
        0
    )::float AS lag_seconds,
    count(*) FILTER (WHERE status <> 'completed' AND next_attempt_at < 'infinity') AS waiting,
    count(*) AS rows,
    pg_total_relation_size('reporting_outbox') AS bytes,
    (
        SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = ANY ($1::text[])
    ) AS connections
FROM reporting_outbox
