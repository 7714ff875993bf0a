-- How many rows are leased, counted up to a limit.
-- Takes  $1 integer: the limit. Gives the count.
-- Plan   reporting_outbox_leased, as many entries as it counts.
SELECT count(*)
FROM (SELECT FROM reporting_outbox WHERE status = 'processing' LIMIT $1) AS leased
