-- Removes the completed rows of a slice of the outbox that were settled longer ago than the retention.
--
-- Takes  $1 uuid: the id after which to go on; $2 float8 retention in seconds; $3 integer: how many rows to look at;
--        $4 bigint: the advisory lock that lets one program at a time do this.
-- Gives  walked: how many rows it looked at, none where another program holds the lock; last_id: the last of them that
--        was created before the retention, null where none was; removed: how many are gone now.
-- Locks  the advisory lock and the rows it removes, until the transaction ends. Rows that others hold are passed over, so
--        it waits for nobody. Whoever enqueues the same work meanwhile waits for this short transaction, then inserts.
-- Plan   the primary key, from $1 on: ids are in the order of creation. Each row is read up to three times.
--
-- The lock is looked for once, before the first row is read. A row may have come to wait again since the statement began:
-- `picked` looks at each once more, with its lock held.
WITH lock AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock($4) AS held
),
slice AS MATERIALIZED (
    SELECT
        o.id, o.created_at < now() - $2::float8 * interval '1 second' AS is_old,
        o.status = 'completed' AND o.updated_at < now() - $2::float8 * interval '1 second' AS is_done
    FROM reporting_outbox AS o
    WHERE (SELECT held FROM lock) AND o.id > $1
    ORDER BY o.id
    LIMIT $3
),
picked AS MATERIALIZED (
    SELECT o.id
    FROM reporting_outbox AS o
    WHERE o.id = ANY (ARRAY(SELECT id FROM slice WHERE is_done))
        AND o.status = 'completed' AND o.updated_at < now() - $2::float8 * interval '1 second'
    FOR UPDATE SKIP LOCKED
),
removed AS (
    DELETE FROM reporting_outbox
    WHERE id = ANY (ARRAY(SELECT id FROM picked))
    RETURNING 1
)
SELECT
    (SELECT count(*) FROM slice) AS walked,
    (SELECT id FROM slice WHERE is_old ORDER BY id DESC LIMIT 1) AS last_id,
    (SELECT count(*) FROM removed) AS removed
