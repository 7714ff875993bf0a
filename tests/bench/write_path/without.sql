-- pgbench: an application's transaction that writes a generation and no outbox row.
\set org random(1, 20)
BEGIN;
INSERT INTO llm_generations (org_id, model, provider, input_tokens, output_tokens, duration_ms)
VALUES (:org, 'live', 'bench', 700, 50, 900);
COMMIT;
