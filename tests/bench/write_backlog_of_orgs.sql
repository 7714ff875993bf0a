-- Writes generations and their outbox rows in bulk, dealt out to orgs in turn, due since long ago.
--
-- Takes  $1 bigint first org; $2 integer how many orgs; $3 integer how many rows; $4 text model, by which these rows are
--        told from others; $5 and $6 float8: how many seconds ago the first became due, and the last.
WITH made AS (
    INSERT INTO llm_generations (org_id, model, provider, input_tokens, output_tokens, duration_ms)
    SELECT $1 + number % $2::integer, $4, 'bench', number, 50, 900 FROM generate_series(0, $3::integer - 1) AS number
    RETURNING id, org_id, input_tokens AS number
)
INSERT INTO reporting_outbox (
    org_id, source_type, source_id, source_version, reason, next_attempt_at, created_at, updated_at
)
SELECT org_id, 'llm_generation', id::text, id::text, 'llm_generation_projection', at, at, at
FROM (
    SELECT id, org_id, now() - make_interval(secs => $5::float8 + ($6::float8 - $5) * number / $3) AS at FROM made
) AS due
