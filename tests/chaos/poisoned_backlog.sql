-- A backlog of sources of every type with their outbox rows, of which every so many is marked as bad.
-- Takes  $1 integer: rows of each of the four types; $2 integer: the first of so many is bad, 0 for none; $3 text: stands in
--        every text of every source; a bad source's begin with "bad".
-- Gives  nothing. Org 1 must be there.
-- Type confusion in JSON is no poison: a good tool call may have a number for its name and a list for its duration.
WITH numbered AS MATERIALIZED (
    SELECT n, CASE WHEN $2 > 0 AND n % GREATEST($2, 1) = 0 THEN 'bad, a row of ' ELSE 'good ' END || $3 AS mark
    FROM generate_series(0, $1::integer - 1) AS n
),
session AS (
    INSERT INTO sessions (id, org_id, owner_principal_id, blueprint_id, status, capabilities)
    SELECT
        uuidv7(), 1, gen_random_uuid(), mark, $3,
        CASE n % 3 WHEN 0 THEN jsonb_build_array(mark) WHEN 1 THEN jsonb_build_object('ref', mark) ELSE '[[1], null]' END
    FROM numbered
    RETURNING id, blueprint_id
),
paired AS MATERIALIZED (
    SELECT s.id AS session_id, s.blueprint_id AS mark, row_number() OVER () AS n FROM session AS s
),
event AS (
    INSERT INTO events (id, session_id, sequence, event_type, data, context)
    SELECT
        uuidv7(), session_id, 1, CASE n % 5 WHEN 0 THEN 'turn.completed' ELSE 'tool.completed' END,
        jsonb_build_object(
            'tool_name', mark, 'turn_id', mark, 'tool_call_id', $3, 'status', $3, 'display_name', $3,
            'capability_id', CASE WHEN n % 7 = 0 THEN to_jsonb(n) ELSE to_jsonb($3::text) END,
            'duration_ms', CASE WHEN n % 2 = 0 THEN to_jsonb(n) ELSE jsonb_build_array($3::text) END
        ) || CASE n % 5 WHEN 0 THEN jsonb_build_object('iterations', n) ELSE '{}' END,
        CASE n % 3 WHEN 0 THEN '[]' WHEN 1 THEN '"text"' ELSE jsonb_build_object('turn_id', mark) END
    FROM paired
    RETURNING id
),
generation AS (
    INSERT INTO llm_generations (id, org_id, session_id, model, provider, finish_reason, input_tokens)
    SELECT uuidv7(), 1, session_id, mark, $3, $3, n FROM paired
    RETURNING id
),
posting AS (
    INSERT INTO usage_ledger (id, org_id, session_id, currency, amount, meter_source, ref_type)
    SELECT uuidv7(), 1, session_id, $3, n, $3, mark FROM paired
    RETURNING id
),
source AS (
    SELECT 'session' AS source_type, session_id AS id, 'session_snapshot' AS reason FROM paired
    UNION ALL
    SELECT 'event', id, 'event_projection' FROM event
    UNION ALL
    SELECT 'llm_generation', id, 'llm_generation_projection' FROM generation
    UNION ALL
    SELECT 'usage_ledger', id, 'budget_posting_projection' FROM posting
)
INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)
SELECT 1, source_type, id::text, id::text, reason FROM source
