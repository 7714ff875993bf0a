-- Makes a process the one that publishes the changelog, unless another has lately said that it is.
--
-- Takes  $1 uuid: the process; $2 float8: after how many seconds of silence another may take over.
-- Gives  a row where it is now the one.
-- Locks  the one row, for this statement: it is run by itself, so that a process that hangs keeps nobody waiting.
-- Plan   the table has one row.
UPDATE reporting_changelog_publisher
SET holder = $1::uuid, renewed_at = clock_timestamp()
WHERE one AND (
    holder = $1 OR holder IS NULL
    -- What lies ahead was written before the clock went back.
    OR abs(extract(epoch FROM clock_timestamp() - GREATEST(renewed_at, 'epoch'))) > $2::float8
)
RETURNING true
