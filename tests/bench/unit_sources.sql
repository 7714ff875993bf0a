-- Writes generations of organization 1 without outbox rows, for projecting them by hand. Takes $1 integer: how many.
-- Gives their ids, as text.
INSERT INTO llm_generations (org_id, model, provider, input_tokens, output_tokens, duration_ms)
SELECT 1, 'unit', 'bench', 700, 50, 900 FROM generate_series(1, $1)
RETURNING id::text AS id
