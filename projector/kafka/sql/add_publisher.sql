-- Adds the row that tells who publishes, where it is not there. Takes and gives nothing.
INSERT INTO reporting_changelog_publisher DEFAULT VALUES ON CONFLICT DO NOTHING
