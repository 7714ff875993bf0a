-- Enqueues the next slice of a dataset's facts to be published, as if they had just been changed.
--
-- Takes  $1 text: the dataset; $2 bigint and $3 text: the org id and source key after which to go on; $4 integer: how many.
-- Gives  one row: seq of the change, null where there was no fact left; org_id and source_key of the last fact; facts: how
--        many.
-- Locks  nothing but the row that it inserts.
-- Plan   a range of the table's primary key that ends with the limit.
WITH slice AS MATERIALIZED (
    SELECT org_id, source_key
    FROM {table}
    WHERE (org_id, source_key) > ($2::bigint, $3::text)
    ORDER BY org_id, source_key
    LIMIT $4::integer
),
enqueued AS (
    INSERT INTO reporting_fact_changes (dataset, org_ids, source_keys)
    SELECT $1::text, array_agg(org_id), array_agg(source_key)
    FROM slice
    HAVING count(*) > 0
    RETURNING seq
)
SELECT
    (SELECT seq FROM enqueued) AS seq, last.org_id, last.source_key, (SELECT count(*) FROM slice) AS facts
FROM (SELECT) AS one
LEFT JOIN (SELECT org_id, source_key FROM slice ORDER BY org_id DESC, source_key DESC LIMIT 1) AS last ON true
