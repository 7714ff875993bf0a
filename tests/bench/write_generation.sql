-- Writes one generation and its outbox row, as an application does in one transaction.
-- Takes $1 bigint org; $2 text model, by which a run's rows are told from those of others.
WITH made AS (
    INSERT INTO llm_generations (org_id, model, provider, input_tokens, output_tokens, duration_ms)
    VALUES ($1, $2, 'bench', 700, 50, 900)
    RETURNING id
)
INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)
SELECT $1, 'llm_generation', id::text, id::text, 'llm_generation_projection' FROM made
