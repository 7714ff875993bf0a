-- What all facts amount to, to compare contestants: for each fact table how many facts, and a checksum over all columns
-- but projected_at.
--
-- Takes  $1 bigint: only facts whose sources are among that many first rows of the outbox; null for all facts.
-- Gives  rows (fact_table, facts, checksum).
-- A source key reads <kind>:<source id>, or goes on after a further colon. Claiming and settling leave next_attempt_at
-- and id as they are, so that the first rows are the same before and after.
WITH sample AS MATERIALIZED (
    SELECT source_id FROM reporting_outbox ORDER BY next_attempt_at, id LIMIT $1::bigint
),
fact AS (
    SELECT 'fact_tool_call' AS fact_table, source_key, to_jsonb(f) - 'projected_at' AS fact FROM fact_tool_call AS f
    UNION ALL
    SELECT 'fact_turn', source_key, to_jsonb(f) - 'projected_at' FROM fact_turn AS f
    UNION ALL
    SELECT 'fact_capability_usage', source_key, to_jsonb(f) - 'projected_at' FROM fact_capability_usage AS f
    UNION ALL
    SELECT 'fact_session', source_key, to_jsonb(f) - 'projected_at' FROM fact_session AS f
    UNION ALL
    SELECT 'fact_llm_generation', source_key, to_jsonb(f) - 'projected_at' FROM fact_llm_generation AS f
    UNION ALL
    SELECT 'fact_budget_posting', source_key, to_jsonb(f) - 'projected_at' FROM fact_budget_posting AS f
)
SELECT fact_table, count(*) AS facts, sum(hashtextextended(fact::text, 0))::text AS checksum
FROM fact
WHERE $1::bigint IS NULL OR split_part(source_key, ':', 2) IN (SELECT source_id FROM sample)
GROUP BY fact_table
ORDER BY fact_table
