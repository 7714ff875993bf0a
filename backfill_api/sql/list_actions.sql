-- Operator actions, the latest first.
-- Takes  $1 bigint org, or null for all there were; $2 uuid id before which to go on; $3 integer how many at the most.
-- Plan   reporting_actions_by_org, or the primary key for all, backwards from the id, ending with the limit.
SELECT id, operation, actor, org_id, parameters::text, rows, outcome, request_id, started_at, finished_at
FROM reporting_actions
WHERE ($1::bigint IS NULL OR org_id = $1) AND id < $2
ORDER BY id DESC
LIMIT $3
