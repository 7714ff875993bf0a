-- Fills the canonical tables, the outbox and the facts, so that plans mean something. Takes the setting fill.sessions:
-- how many sessions; each has 8 events, 2 generations, a posting, and facts of most of these.
SET session_replication_role = replica;

INSERT INTO organizations (org_id, public_id, name)
SELECT number, 'org_' || lpad(to_hex(number), 32, '0'), 'Org ' || number FROM generate_series(1, 20) AS number;

INSERT INTO agents (org_id, name) SELECT 1 + number % 20, 'Agent ' || number FROM generate_series(1, 1000) AS number;
INSERT INTO harnesses (org_id, name) SELECT 1 + number % 20, 'Harness ' || number FROM generate_series(1, 1000) AS number;
INSERT INTO mcp_servers (org_id, name) SELECT 1 + number % 20, 'Server ' || number FROM generate_series(1, 1000) AS number;
INSERT INTO skills (org_id, name) SELECT 1 + number % 20, 'Skill ' || number FROM generate_series(1, 1000) AS number;
INSERT INTO declarative_capabilities (org_id, name)
SELECT 1 + number % 20, 'declared-' || number FROM generate_series(1, 2000) AS number;
INSERT INTO budgets (org_id, subject_type, subject_id, currency)
SELECT 1 + number % 20, 'org', number::text, 'USD' FROM generate_series(1, 1000) AS number;
INSERT INTO agent_capabilities (agent_id, capability_id)
SELECT a.id, 'mcp:' || m.id
FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM agents) AS a
JOIN (SELECT id, row_number() OVER (ORDER BY id) AS place FROM mcp_servers) AS m USING (place);
INSERT INTO harness_capabilities (harness_id, capability_id)
SELECT h.id, 'skill:' || s.id
FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM harnesses) AS h
JOIN (SELECT id, row_number() OVER (ORDER BY id) AS place FROM skills) AS s USING (place);

INSERT INTO sessions (org_id, owner_principal_id, agent_id, harness_id, capabilities, created_at)
SELECT
    a.org_id, gen_random_uuid(), a.id, h.id, jsonb_build_array('web', jsonb_build_object('ref', 'declarative:declared-' || place)),
    now() - place * interval '1 minute'
FROM generate_series(1, current_setting('fill.sessions')::integer) AS place
JOIN (SELECT id, org_id, row_number() OVER (ORDER BY org_id, id) - 1 AS number FROM agents) AS a ON a.number = place % 1000
JOIN (SELECT id, org_id, row_number() OVER (ORDER BY org_id, id) - 1 AS number FROM harnesses) AS h
    ON h.number = place % 1000;

INSERT INTO events (session_id, sequence, event_type, data, context, ts)
SELECT
    s.id, number,
    (ARRAY['tool.completed', 'tool.completed', 'capability.usage', 'message.sent', 'tool.completed', 'turn.completed',
        'output.message.replaced', 'message.sent'])[number],
    jsonb_build_object(
        'tool_name', 'tool-' || number, 'success', true, 'turn_id', 'turn_1', 'guardrail_capability_id', 'guard',
        'records', '[{"capability_id": "web", "usage_kind": "exposed"}, {"capability_id": "x", "usage_kind": "odd"}]'::jsonb
    ) || CASE WHEN number = 1 THEN '{"capability_id": "web"}'::jsonb ELSE '{}' END,
    '{}', s.created_at + number * interval '1 second'
FROM sessions AS s
CROSS JOIN generate_series(1, 8) AS number;

INSERT INTO llm_generations (org_id, session_id, model, input_tokens, created_at)
SELECT s.org_id, s.id, 'model-' || number, number, s.created_at
FROM sessions AS s CROSS JOIN generate_series(1, 2) AS number;

INSERT INTO usage_ledger (org_id, session_id, agent_id, harness_id, budget_id, currency, amount, meter_source, created_at)
SELECT s.org_id, s.id, s.agent_id, s.harness_id, b.id, 'USD', 1, 'llm', s.created_at
FROM sessions AS s
JOIN (SELECT DISTINCT ON (org_id) org_id, id FROM budgets ORDER BY org_id) AS b USING (org_id);

-- Facts of nine sources in ten.
INSERT INTO fact_session (org_id, source_key, session_id, created_at, time_bucket_day)
SELECT org_id, 'session:' || id, id, created_at, created_at::date FROM sessions WHERE hashtext(id::text) % 10 <> 0;
INSERT INTO fact_capability_usage (
    org_id, source_key, session_id, created_at, time_bucket_day, capability_id, capability_usage_kind
)
SELECT org_id, 'session:' || id || ':configured:session:' || capability, id, created_at, created_at::date, capability, 'configured'
FROM sessions CROSS JOIN unnest(ARRAY['web', 'old', 'older']) AS capability WHERE hashtext(id::text) % 10 <> 0;
INSERT INTO fact_tool_call (org_id, source_key, session_id, created_at, time_bucket_day)
SELECT s.org_id, 'event:' || e.id, s.id, e.ts, e.ts::date
FROM events AS e JOIN sessions AS s ON s.id = e.session_id
WHERE event_type = 'tool.completed' AND hashtext(e.id::text) % 10 <> 0;
INSERT INTO fact_turn (org_id, source_key, session_id, created_at, time_bucket_day)
SELECT s.org_id, 'event:' || e.id, s.id, e.ts, e.ts::date
FROM events AS e JOIN sessions AS s ON s.id = e.session_id
WHERE event_type = 'turn.completed' AND hashtext(e.id::text) % 10 <> 0;
INSERT INTO fact_capability_usage (
    org_id, source_key, session_id, created_at, time_bucket_day, capability_id, capability_usage_kind
)
SELECT s.org_id, 'event:' || e.id || ':invoked', s.id, e.ts, e.ts::date, 'web', 'invoked'
FROM events AS e JOIN sessions AS s ON s.id = e.session_id
WHERE event_type = 'tool.completed' AND hashtext(e.id::text) % 10 <> 0;
INSERT INTO fact_llm_generation (org_id, source_key, session_id, created_at, time_bucket_day)
SELECT org_id, 'llm_generation:' || id, session_id, created_at, created_at::date
FROM llm_generations WHERE hashtext(id::text) % 10 <> 0;
INSERT INTO fact_budget_posting (org_id, source_key, session_id, created_at, time_bucket_day)
SELECT org_id, 'usage_ledger:' || id, session_id, created_at, created_at::date
FROM usage_ledger WHERE hashtext(id::text) % 10 <> 0;

-- The outbox: ten completed rows for one that is due, and some of each other kind.
INSERT INTO reporting_outbox (
    org_id, source_type, source_id, reason, status, attempts, next_attempt_at, claimed_at, created_at, updated_at
)
SELECT
    1 + number % 20, (ARRAY['event', 'session', 'llm_generation', 'usage_ledger'])[1 + number % 4], number::text,
    kind.status || kind.place, kind.status, kind.attempts, COALESCE(kind.due, now() - number * interval '1 second'),
    CASE kind.status WHEN 'processing' THEN now() - interval '1 hour' END, now() - number * interval '1 second',
    now() - number * interval '1 second'
FROM (VALUES
    (1, 'completed', 0, NULL, 50000), (2, 'pending', 0, NULL, 5000), (3, 'failed', 2, NULL, 300),
    (4, 'failed', 3, now() + interval '1 hour', 300), (5, 'failed', 10, 'infinity', 300), (6, 'processing', 0, NULL, 300)
) AS kind (place, status, attempts, due, rows)
CROSS JOIN LATERAL generate_series(1, kind.rows) AS number;

SET session_replication_role = origin;
