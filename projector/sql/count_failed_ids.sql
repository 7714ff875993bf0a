-- Counts which of the given rows have failed. Takes $1 uuid[] ids; $2 bigint org, or null for any. Plan: the key.
SELECT count(*)
FROM reporting_outbox
WHERE id = ANY ($1::uuid[]) AND status = 'failed' AND ($2::bigint IS NULL OR org_id = $2)
