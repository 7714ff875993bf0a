-- Finds out whether a process publishes the changelog, or may from now on, and holds that fast until the transaction ends.
--
-- Takes  $1 uuid: the process; $2 float8: after how many seconds of silence another may take over.
-- Gives  a row where it may publish: held: whether it was the one already; quiet_seconds since it last said so. Values are
--        told in UTC and in full from here to the end of the transaction.
-- Locks  the one row, until the transaction ends. Where another holds it, no row is given: nobody waits.
-- Plan   the table has one row.
SELECT
    holder IS NOT DISTINCT FROM $1::uuid AS held,
    extract(epoch FROM clock_timestamp() - renewed_at)::float8 AS quiet_seconds,
    set_config('TimeZone', 'UTC', true), set_config('extra_float_digits', '1', true)
FROM reporting_changelog_publisher
WHERE one AND (
    holder = $1 OR holder IS NULL
    -- What lies ahead was written before the clock went back.
    OR abs(extract(epoch FROM clock_timestamp() - GREATEST(renewed_at, 'epoch'))) > $2::float8
)
FOR UPDATE SKIP LOCKED
