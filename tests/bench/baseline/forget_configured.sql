-- Removes the configured capabilities of one session, before those that it has now are written.
-- Takes  $1 bigint org id; $2 uuid session id.
DELETE FROM fact_capability_usage
WHERE org_id = $1 AND session_id = $2 AND capability_usage_kind = 'configured' AND starts_with(source_key, 'session:')
