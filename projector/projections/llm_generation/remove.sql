-- Removes the facts of generations that are gone.
-- Takes $1 bigint[] org ids and $2 text[] generation ids, in pairs. Gives the count of facts removed, by dataset.
WITH input AS MATERIALIZED (
    SELECT DISTINCT given.org_id, given.source_id::uuid AS generation_id
    FROM unnest($1::bigint[], $2::text[]) AS given (org_id, source_id)
),
removed AS (
    DELETE FROM fact_llm_generation AS f USING input AS i
    WHERE f.org_id = i.org_id AND f.source_key = 'llm_generation:' || i.generation_id
    RETURNING 1
)
SELECT 'llm_generations' AS name, count(*) AS count FROM removed
