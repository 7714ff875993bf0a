-- Failed rows, the latest failure first; dead letters are those that are never due.
-- Takes  $1 bigint org, or null for all; $2 boolean: dead letters alone, none of them, or null for both; $3 text source
--        type, or null for all; $4 timestamptz and $5 uuid: updated_at and id after which to go on; $6 integer: how many
--        at the most.
-- Plan   reporting_outbox_failed_by_org, or reporting_outbox_failed for all orgs, backwards from the key, ending with the
--        limit. Rows of other types or kinds are passed over on the way.
SELECT
    id, org_id, source_type, source_id, source_version, reason, attempts, last_error, created_at, updated_at,
    NULLIF(next_attempt_at, 'infinity') AS next_attempt_at
FROM reporting_outbox
WHERE status = 'failed' AND ($1::bigint IS NULL OR org_id = $1)
    AND ($2::boolean IS NULL OR (next_attempt_at = 'infinity') = $2) AND ($3::text IS NULL OR source_type = $3)
    AND (updated_at, id) < ($4::timestamptz, $5::uuid)
ORDER BY updated_at DESC, id DESC
LIMIT $6
