-- Fills in the usage that the provider reported late, and enqueues the generation once more.
-- Takes: $1 generation, tokens: $2 input, $3 output, $4 cache read, $5 cache creation.
-- Gives: how many outbox rows were written.
WITH changed AS (
    UPDATE llm_generations
    SET input_tokens = $2, output_tokens = $3, cache_read_tokens = $4, cache_creation_tokens = $5
    WHERE id = $1
    RETURNING id, org_id
), enqueued AS (
    INSERT INTO reporting_outbox AS outbox (org_id, source_type, source_id, source_version, reason)
    SELECT org_id, 'llm_generation', id::text, id::text || ':late_usage', 'llm_generation_projection' FROM changed
    ON CONFLICT (org_id, source_type, source_id, source_version, reason) DO UPDATE
    SET status = CASE outbox.status WHEN 'completed' THEN 'pending' ELSE outbox.status END,
        next_attempt_at = now(),
        updated_at = now()
    RETURNING 1
)
SELECT count(*) FROM enqueued;
