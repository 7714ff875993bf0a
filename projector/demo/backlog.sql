-- Writes the slice that backlog_plan.sql has planned: its sources, and one outbox row for each.
-- Takes: the temporary tables of the plan. Gives: the rows, and backlog_event for the count.
--
-- Each table is filled in the order of time, as it would have grown.

INSERT INTO llm_generations (id, org_id, session_id, turn_id, model, provider, finish_reason, input_tokens,
                             output_tokens, cache_read_tokens, cache_creation_tokens, duration_ms, created_at)
SELECT id, org_id, session_id, turn_id, model, provider, finish_reason, input_tokens, output_tokens,
       cache_read_tokens, cache_creation_tokens, duration_ms, at
FROM backlog_generation
ORDER BY at;

INSERT INTO usage_ledger (id, org_id, budget_id, session_id, user_id, principal_id, agent_id, harness_id, currency,
                          amount, meter_source, ref_type, created_at)
SELECT id, org_id, budget_id, session_id, user_id, principal_id, agent_id, harness_id, 'usd', amount, meter_source,
       ref_type, at
FROM backlog_posting
ORDER BY at;

-- The counters and updated_at are what the triggers would have left after the last event.
INSERT INTO sessions (id, org_id, owner_principal_id, resolved_owner_user_id, agent_id, harness_id, app_id,
                      blueprint_id, status, capabilities, turn_count, tool_call_count, total_input_tokens,
                      total_output_tokens, total_cache_read_tokens, total_cache_creation_tokens, created_at,
                      updated_at, started_at, finished_at)
SELECT id, session.org_id, principal_id, user_id, agent_id, harness_id, app_id, blueprint_id, status, configured,
       turns, tool_calls, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, created_at,
       ended_at + interval '20 ms', created_at + interval '1500 ms',
       CASE WHEN status IN ('completed', 'failed', 'cancelled') THEN ended_at + interval '20 ms' END
FROM backlog_session AS session
JOIN (
    SELECT n, sum(tools) AS tool_calls, max(ended_at) AS ended_at FROM backlog_turn GROUP BY n
) AS turns USING (n)
JOIN (
    SELECT n, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
           sum(cache_read_tokens) AS cache_read_tokens, sum(cache_creation_tokens) AS cache_creation_tokens
    FROM backlog_generation
    GROUP BY n
) AS tokens USING (n)
-- Up to two capabilities of its own: an object, or as in older sessions the plain id.
CROSS JOIN LATERAL (
    SELECT coalesce(
        jsonb_agg(CASE WHEN i = 0 THEN jsonb_build_object('ref', capability_id, 'config', '{}'::jsonb)
                  ELSE to_jsonb(capability_id) END),
        '[]'
    ) AS configured
    FROM generate_series(0, floor(pg_temp.draw(n, 60) * 4)::integer - 2) AS i
    JOIN backlog_capability AS capability
      ON capability.org_id = session.org_id AND capability.ordinal = (n + i * 5) % capability.capabilities
) AS capabilities
ORDER BY created_at;

-- A turn's events have numbers from 0 to 15: 1 to 6 are its tool calls.
CREATE TEMPORARY TABLE backlog_event ON COMMIT DROP AS
SELECT pg_temp.made_id(at, key * 16 + part, 70) AS id, n, session_id, org_id, at, event_type, data, context,
       row_number() OVER (PARTITION BY n ORDER BY at, part) AS sequence
FROM (
    -- Four in a hundred tool calls come from an older writer: success but no status, the turn in data alone.
    SELECT n, session_id, org_id, key, part, at, 'tool.completed' AS event_type,
           CASE WHEN older
               THEN jsonb_build_object('tool_call_id', call_id, 'tool_name', name, 'success', status = 'success',
                                       'turn_id', turn_id)
               ELSE jsonb_build_object('tool_call_id', call_id, 'tool_name', name, 'display_name', display_name,
                                       'status', status, 'duration_ms', duration_ms)
           END
           || CASE WHEN capability_id IS NULL THEN '{}'
               ELSE jsonb_build_object('capability_id', capability_id, 'capability_name', capability_name) END AS data,
           CASE WHEN older THEN '{}' ELSE jsonb_build_object('turn_id', turn_id) END AS context
    FROM (
        SELECT n, session_id, turn.org_id, key, part, name, display_name, capability_id, capability_name, status,
               started_at + turn.duration_ms * (part - 0.4) / turn.tools * interval '1 ms' AS at,
               'turn_' || replace(turn.id::text, '-', '') AS turn_id,
               'call_' || left(md5(key || 'call' || part), 24) AS call_id,
               pg_temp.draw(key * 16 + part, 71) < 0.04 AS older,
               CASE status WHEN 'timeout' THEN 30000 << (key % 3)::integer
                   ELSE pg_temp.around(key * 16 + part, 72, median_ms, 0.8) END AS duration_ms
        FROM backlog_turn AS turn
        CROSS JOIN generate_series(1, turn.tools) AS part
        JOIN backlog_tool AS tool
          ON tool.org_id = turn.org_id AND tool.ordinal = floor(tool.tools * pg_temp.draw(key * 16 + part, 73))
        CROSS JOIN LATERAL (
            SELECT CASE WHEN percent < timeout_percent THEN 'timeout'
                WHEN percent < timeout_percent + error_percent THEN 'error'
                WHEN percent < timeout_percent + error_percent + 1.5 THEN 'cancelled'
                ELSE 'success' END AS status
            FROM (SELECT 100 * pg_temp.draw(key * 16 + part, 74) AS percent) AS _
        ) AS outcome
    ) AS call
    UNION ALL
    SELECT n, session_id, org_id, key, part, at, event_type,
           jsonb_build_object('turn_id', 'turn_' || replace(id::text, '-', '')) || text, '{}'
    FROM backlog_turn
    CROSS JOIN LATERAL (VALUES
        (0, started_at, 'message.user', '{"text": "Please go on."}'::jsonb),
        (9, ended_at - interval '20 ms', 'output.message.completed', '{"text": "Done."}'),
        (15, ended_at + interval '5 ms', 'turn.sealed', '{}')
    ) AS message (part, at, event_type, text)
    UNION ALL
    SELECT n, session_id, org_id, key, 8, started_at + interval '200 ms', 'capability.usage', data,
           jsonb_build_object('turn_id', 'turn_' || replace(id::text, '-', ''))
    FROM backlog_turn
    CROSS JOIN LATERAL (
        SELECT jsonb_build_object('records', jsonb_agg(jsonb_build_object(
                   'capability_id', capability_id, 'capability_name', name,
                   'usage_kind', (ARRAY['resolved', 'exposed', 'invoked', 'effect_ran'])[1 + (key + i) % 4],
                   'usage_count', 1 + key % 3, 'duration_ms', pg_temp.around(key * 2 + i, 75, 240, 0.8)
               ))) AS data
        FROM generate_series(0, 1) AS i
        JOIN backlog_capability AS capability
          ON capability.org_id = backlog_turn.org_id AND capability.ordinal = (key + i * 3) % capability.capabilities
    ) AS records
    WHERE pg_temp.draw(key, 76) < 0.5
    UNION ALL
    SELECT n, session_id, org_id, key, 10, ended_at - interval '10 ms', 'output.message.replaced',
           jsonb_build_object('guardrail_capability_id', words -> 'guardrails' -> (key % 2)::integer), '{}'
    FROM backlog_turn, backlog_setting
    WHERE pg_temp.draw(key, 77) < 0.07
    UNION ALL
    SELECT n, session_id, org_id, turn.key, 11, ended_at, ending,
           jsonb_build_object('turn_id', 'turn_' || replace(id::text, '-', ''), 'duration_ms', duration_ms)
               || CASE ending WHEN 'turn.completed' THEN jsonb_build_object('iterations', iterations, 'usage', usage)
                   ELSE '{}' END,
           jsonb_build_object('turn_id', 'turn_' || replace(id::text, '-', ''))
    FROM backlog_turn AS turn
    JOIN (
        SELECT turn_id AS id, count(*) AS iterations,
               jsonb_build_object('input_tokens', sum(input_tokens), 'output_tokens', sum(output_tokens),
                                  'cache_read_tokens', sum(cache_read_tokens),
                                  'cache_creation_tokens', sum(cache_creation_tokens)) AS usage
        FROM backlog_generation
        GROUP BY turn_id
    ) AS tokens USING (id)
) AS event;

INSERT INTO events (id, session_id, sequence, event_type, data, context, ts, created_at)
SELECT id, session_id, sequence, event_type, data, context, at, at + interval '1 ms' FROM backlog_event ORDER BY at;

-- Due since the moment they were enqueued: in the order of time, all sources mixed. The session's version is written
-- as the application writes it: 0, 3 or 6 digits of fraction, then +00:00.
INSERT INTO reporting_outbox (id, org_id, source_type, source_id, source_version, reason, next_attempt_at, created_at,
                              updated_at)
SELECT pg_temp.made_id(at, n, 80 + kind), org_id, source_type, source_id, version, reason, at, at, at
FROM (
    SELECT 0 AS kind, org_id, 'event' AS source_type, id::text AS source_id, id::text AS version,
           'event_projection' AS reason, at + interval '1 ms' AS at, hashtextextended(id::text, 0) AS n
    FROM backlog_event
    UNION ALL
    SELECT 1, org_id, 'llm_generation', id::text, id::text, 'llm_generation_projection', at, key
    FROM backlog_generation
    UNION ALL
    SELECT 2, org_id, 'usage_ledger', id::text, id::text, 'budget_posting_projection', at, key * 8 + salt - 50
    FROM backlog_posting
    UNION ALL
    SELECT 3, session.org_id, 'session', id::text,
           regexp_replace(to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '(\.000000|000)$', '')
               || '+00:00',
           'session_snapshot', updated_at, n
    FROM backlog_session AS session JOIN sessions USING (id)
) AS source
ORDER BY at;
