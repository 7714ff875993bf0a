-- About how many rows a table has, by the server's statistics; 0 where it has none yet.
--
-- Takes  $1 text: the table. Gives the number. Locks nothing. Plan: the catalog's own indexes.
SELECT GREATEST(pg_stat_get_live_tuples(oid), reltuples::bigint, 0) FROM pg_class WHERE oid = $1::text::regclass
