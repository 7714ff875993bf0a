-- What a fresh copy has seen since it was made: rows read in the indexes of due rows, which are those that claims got and
-- those that they passed over as others held them; deadlocks; transactions that were rolled back.
SELECT
    (
        SELECT sum(idx_tup_fetch)::bigint
        FROM pg_stat_user_indexes
        WHERE relname = 'reporting_outbox' AND pg_get_indexdef(indexrelid) LIKE '%pending%'
    ) AS rows_read,
    deadlocks, xact_rollback AS rollbacks
FROM pg_stat_database
WHERE datname = current_database()
