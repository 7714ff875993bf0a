-- Records an LLM generation and enqueues it.
-- Takes: $1 org, $2 session, $3 turn, $4 event (each may be null), $5 model, $6 provider, $7 finish reason,
-- tokens: $8 input, $9 output, $10 cache read, $11 cache creation; $12 duration in ms.
-- Gives: the generation's id and how many outbox rows were written.
WITH written AS (
    INSERT INTO llm_generations (org_id, session_id, turn_id, event_id, model, provider, finish_reason, input_tokens,
                                 output_tokens, cache_read_tokens, cache_creation_tokens, duration_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    RETURNING id, org_id
), enqueued AS (
    INSERT INTO reporting_outbox AS outbox (org_id, source_type, source_id, source_version, reason)
    SELECT org_id, 'llm_generation', id::text, id::text, 'llm_generation_projection' FROM written
    ON CONFLICT (org_id, source_type, source_id, source_version, reason) DO UPDATE
    SET status = CASE outbox.status WHEN 'completed' THEN 'pending' ELSE outbox.status END,
        next_attempt_at = now(),
        updated_at = now()
    RETURNING 1
)
SELECT id, (SELECT count(*) FROM enqueued) AS enqueued FROM written;
