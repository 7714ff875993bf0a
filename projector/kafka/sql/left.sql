-- Which of some changes are not yet published.
--
-- Takes  $1 bigint[]: their seqs. Gives the seqs that are still there. Locks nothing.
-- Plan   one look at the primary key for each.
SELECT seq FROM reporting_fact_changes WHERE seq = ANY ($1::bigint[])
