-- Removes the facts of ledger rows that are gone.
-- Takes $1 bigint[] org ids and $2 text[] ledger row ids, in pairs. Gives the count of facts removed, by dataset.
WITH input AS MATERIALIZED (
    SELECT DISTINCT given.org_id, given.source_id::uuid AS posting_id
    FROM unnest($1::bigint[], $2::text[]) AS given (org_id, source_id)
),
removed AS (
    DELETE FROM fact_budget_posting AS f USING input AS i
    WHERE f.org_id = i.org_id AND f.source_key = 'usage_ledger:' || i.posting_id
    RETURNING 1
)
SELECT 'budget_postings' AS name, count(*) AS count FROM removed
