-- How many rows of flat_waiting.sql were settled. Plan: a scan of the table.
SELECT count(*) FROM reporting_outbox WHERE status = 'completed' AND reason = 'bench_behind'
