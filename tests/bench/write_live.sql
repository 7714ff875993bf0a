-- Writes one generation and its outbox row, as an application does in one transaction. Takes $1 bigint org.
-- Gives the key of the fact that it will have.
WITH made AS (
    INSERT INTO llm_generations (org_id, model, provider, input_tokens, output_tokens, duration_ms)
    VALUES ($1, 'live', 'bench', 700, 50, 900)
    RETURNING id
),
enqueued AS (
    INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)
    SELECT $1, 'llm_generation', id::text, id::text, 'llm_generation_projection' FROM made
)
SELECT 'llm_generation:' || id FROM made
