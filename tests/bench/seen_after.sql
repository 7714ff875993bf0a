-- How long after a moment each fact of one model could be seen, in seconds, in no order.
-- Takes  $1 text model; $2 timestamptz moment. Needs track_commit_timestamp = on. Plan: all facts.
SELECT extract(epoch FROM pg_xact_commit_timestamp(f.xmin) - $2)::float8 AS lag
FROM fact_llm_generation AS f
WHERE f.model = $1
