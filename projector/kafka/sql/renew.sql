-- Says that a process publishes the changelog, and draws the version of what it publishes next.
--
-- Takes  $1 uuid: the process, which holds the row (lease.sql).
-- Gives  version: higher than all before it. Microseconds of the clock, so that it also grows over a restored backup; one
--        more than the last where the clock stands or goes back.
-- Locks  the one row, until the transaction ends. That waits for the disk: whatever was committed before, and is published
--        next, is there after a crash of the server too.
-- Plan   the table has one row.
UPDATE reporting_changelog_publisher
SET
    holder = $1::uuid, renewed_at = clock_timestamp(),
    version = GREATEST(version + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
WHERE one
RETURNING version, set_config('synchronous_commit', 'on', true)
