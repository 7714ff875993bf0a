-- How many rows are pending, all of them counted. Plan: a scan of the table.
SELECT count(*) FROM reporting_outbox WHERE status = 'pending'
