-- Removes changes that were published.
--
-- Takes  $1 bigint[]: their seqs. Gives nothing.
-- Locks  the rows, for this statement: it is run by itself, so that a process that hangs keeps nobody waiting.
-- Plan   one look at the primary key for each.
DELETE FROM reporting_fact_changes WHERE seq = ANY ($1::bigint[])
