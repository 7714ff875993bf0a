-- The outbox's size on the disk, its live and dead rows as the server's statistics tell, and how often autovacuum came by.
-- Takes nothing. Gives one row; `indexes` is a JSON object of bytes by index. Costs a look at the catalog, reads no row.
SELECT
    pg_relation_size(s.relid) AS heap_bytes, s.n_live_tup AS live, s.n_dead_tup AS dead, s.autovacuum_count AS autovacuums,
    (
        SELECT json_object_agg(i.indexrelid::regclass::text, pg_relation_size(i.indexrelid) ORDER BY i.indexrelid)
        FROM pg_index AS i
        WHERE i.indrelid = s.relid
    ) AS indexes
FROM pg_stat_user_tables AS s
WHERE s.relid = 'reporting_outbox'::regclass
