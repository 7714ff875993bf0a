-- pgbench: an application's transaction that writes a generation and its outbox row.
\set org random(1, 20)
BEGIN;
INSERT INTO llm_generations (org_id, model, provider, input_tokens, output_tokens, duration_ms)
VALUES (:org, 'live', 'bench', 700, 50, 900)
RETURNING id AS generation \gset
INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)
VALUES (:org, 'llm_generation', :generation::text, :generation::text, 'llm_generation_projection');
COMMIT;
