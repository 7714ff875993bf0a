-- How long rows took from their own commit to that of their fact, where the commit came late.
-- Takes  $1 float: by how many seconds at least.
-- Gives  one row: how many there were; median, p99 and max in seconds. Needs track_commit_timestamp.
SELECT
    count(*) AS rows,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY delay) AS median,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY delay) AS p99,
    max(delay) AS max
FROM (
    SELECT
        extract(epoch FROM pg_xact_commit_timestamp(f.xmin) - pg_xact_commit_timestamp(l.xmin))::float AS delay,
        extract(epoch FROM pg_xact_commit_timestamp(l.xmin) - l.created_at)::float AS late
    FROM usage_ledger AS l
    JOIN fact_budget_posting AS f ON f.org_id = l.org_id AND f.source_key = 'usage_ledger:' || l.id
    UNION ALL
    SELECT
        extract(epoch FROM pg_xact_commit_timestamp(f.xmin) - pg_xact_commit_timestamp(e.xmin))::float,
        extract(epoch FROM pg_xact_commit_timestamp(e.xmin) - e.created_at)::float
    FROM events AS e
    JOIN fact_tool_call AS f ON f.source_key = 'event:' || e.id
) AS projected
WHERE late >= $1
