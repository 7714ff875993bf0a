-- Writes generations whose outbox rows were completed long ago, so that indexes have a depth. Takes $1 integer: how many.
WITH made AS (
    INSERT INTO llm_generations (org_id, model, provider, input_tokens)
    SELECT 1 + number % 20, 'old', 'bench', 700 FROM generate_series(1, $1::integer) AS number
    RETURNING id, org_id
)
INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason, status)
SELECT org_id, 'llm_generation', id::text, id::text, 'llm_generation_projection', 'completed' FROM made
