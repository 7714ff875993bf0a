-- Says that a process does not publish the changelog any more: another may at once.
--
-- Takes  $1 uuid: the process. Gives nothing. Locks the one row, for this statement. Plan: the table has one row.
UPDATE reporting_changelog_publisher SET holder = NULL WHERE one AND holder = $1::uuid
