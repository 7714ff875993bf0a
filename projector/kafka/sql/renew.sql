-- Says that a process still publishes the changelog, and draws the version of what it has read and publishes next.
--
-- Takes  $1 uuid: the process.
-- Gives  version: higher than all before it; no row where another process has taken over. Microseconds of the clock, so that
--        it also grows over a restored backup; one more than the last where the clock stands or goes back.
-- Locks  the one row, for this statement: it is run by itself, so that a process that hangs keeps nobody waiting. It waits
--        for the disk: what was read before it, and is published next, is there after a crash of the server too.
-- Plan   the table has one row.
UPDATE reporting_changelog_publisher
SET
    renewed_at = clock_timestamp(),
    version = GREATEST(version + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
WHERE one AND holder = $1::uuid
RETURNING version, set_config('synchronous_commit', 'on', true)
