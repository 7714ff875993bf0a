-- Writes generations of one org with their outbox rows, all in one transaction. Takes $1 bigint org; $2 integer how many.
WITH made AS (
    INSERT INTO llm_generations (org_id, model, provider, input_tokens)
    SELECT $1, 'small', 'bench', number FROM generate_series(1, $2) AS number
    RETURNING id
)
INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)
SELECT $1, 'llm_generation', id::text, id::text, 'llm_generation_projection' FROM made
