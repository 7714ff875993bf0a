-- Notes how far a backfill has come, and forgets those that nobody has gone on with for an hour.
-- Takes  $1 text scope; $2 jsonb position. Plan: the key; the table holds a row for each backfill under way.
WITH forgotten AS (
    DELETE FROM reporting_backfill_progress
    WHERE updated_at < now() - interval '1 hour' AND scope <> $1
)
INSERT INTO reporting_backfill_progress AS p (scope, position)
VALUES ($1, $2::jsonb)
ON CONFLICT (scope) DO UPDATE SET position = excluded.position, updated_at = now()
