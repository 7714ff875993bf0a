-- Counts which of the given rows have failed. Takes $1 uuid[] ids. Plan: the primary key.
SELECT count(*) FROM reporting_outbox WHERE id = ANY ($1::uuid[]) AND status = 'failed'
