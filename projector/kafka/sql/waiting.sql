-- How many changes wait to be published, and for how long the oldest has.
--
-- Takes  $1 integer: how many to count at the most. Gives changes, seconds (0 where none waits). Locks nothing.
-- Plan   the primary key from the bottom, up to the limit.
SELECT
    count(*) AS changes, COALESCE(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS seconds
FROM (SELECT created_at FROM reporting_fact_changes ORDER BY seq LIMIT $1::integer) AS oldest
