-- How far a backfill has come; nothing where none was made within the last hour. Takes $1 text scope. Plan: the key.
SELECT position::text
FROM reporting_backfill_progress
WHERE scope = $1 AND updated_at > now() - interval '1 hour'
