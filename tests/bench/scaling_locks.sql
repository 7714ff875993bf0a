-- The projector's connections to this database at this moment. Gives busy, and how many of them wait for a lock.
SELECT
    count(*) FILTER (WHERE state <> 'idle') AS busy,
    count(*) FILTER (WHERE state = 'active' AND wait_event_type = 'Lock') AS waiting
FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'reporting-projector'
