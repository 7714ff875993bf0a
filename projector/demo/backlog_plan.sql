-- Plans one slice of a backlog in temporary tables: sessions, their turns, the turns' generations and postings.
-- Takes: the settings of backlog_settings.sql. Gives: backlog_org, _tool, _capability, _session, _turn, _generation,
-- _posting, for backlog.sql to write; they go with the transaction.
--
-- Nothing is random: every draw is a hash of the row's number and of what is drawn (the salt, another for each use).

-- A number from 0 up to, not including, 1.
CREATE OR REPLACE FUNCTION pg_temp.draw(key bigint, salt bigint) RETURNS double precision LANGUAGE sql IMMUTABLE
    AS $$ SELECT (hashint8extended(key, salt) & 1073741823) / 1073741824.0::double precision $$;

-- A size or duration with a long tail upwards (log-normal); half lie below the median.
CREATE OR REPLACE FUNCTION pg_temp.around(key bigint, salt bigint, median double precision, spread double precision)
    RETURNS bigint LANGUAGE sql IMMUTABLE
    AS $$
        SELECT 1 + (median * exp(spread * 2 * (
            pg_temp.draw(key, salt) + pg_temp.draw(key, salt + 1000) + pg_temp.draw(key, salt + 2000) - 1.5
        )))::bigint
    $$;

-- The id (version 7) of a row made at that time; unique as long as no two rows share key, salt and millisecond.
CREATE OR REPLACE FUNCTION pg_temp.made_id(at timestamptz, key bigint, salt bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE
    AS $$
        SELECT (lpad(to_hex((date_part('epoch', at) * 1000)::bigint), 12, '0')
            || '7' || overlay(left(md5(key || ':' || salt), 19) PLACING 'a' FROM 4 FOR 1))::uuid
    $$;

CREATE TEMPORARY TABLE backlog_setting ON COMMIT DROP AS
SELECT current_setting('backlog.first')::bigint AS first,
       current_setting('backlog.last')::bigint AS last,
       current_setting('backlog.sessions')::bigint AS sessions,
       current_setting('backlog.now')::timestamptz AS now,
       current_setting('backlog.vocabulary')::jsonb AS words;

-- The models and, below, the tools as often as their weight says: a draw of an ordinal is a weighted draw.
CREATE TEMPORARY TABLE backlog_model ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY name) - 1 AS ordinal, count(*) OVER () AS models, model.*
FROM backlog_setting,
     jsonb_to_recordset(words -> 'models') AS model (
         name text, provider text, weight integer, input_price double precision, output_price double precision,
         token_ms double precision, writes_cache boolean
     ),
     generate_series(1, weight);

-- Who belongs to which org stands in no table: as in the seed, users and principals are dealt out by sorted id.
CREATE TEMPORARY TABLE backlog_org ON COMMIT DROP AS
WITH org AS (
    SELECT org_id, row_number() OVER (ORDER BY org_id) - 1 AS ordinal, count(*) OVER () AS orgs
    FROM organizations
    WHERE EXISTS (SELECT FROM agents WHERE agents.org_id = organizations.org_id)
      AND EXISTS (SELECT FROM harnesses WHERE harnesses.org_id = organizations.org_id)
), person AS (
    SELECT array_agg(users.id ORDER BY position) AS users, array_agg(principals.id ORDER BY position) AS principals,
           (position - 1) % (SELECT count(*) FROM org) AS ordinal
    FROM (SELECT id, row_number() OVER (ORDER BY id) AS position FROM users) AS users
    JOIN (SELECT id, row_number() OVER (ORDER BY id) AS position FROM principals) AS principals USING (position)
    GROUP BY 3
)
SELECT org.*, users, principals,
       ARRAY(SELECT id FROM agents WHERE agents.org_id = org.org_id ORDER BY id) AS agents,
       ARRAY(SELECT id FROM harnesses WHERE harnesses.org_id = org.org_id ORDER BY id) AS harnesses,
       ARRAY(SELECT id FROM budgets WHERE budgets.org_id = org.org_id ORDER BY id) AS budgets
FROM org JOIN person USING (ordinal);

-- The capabilities with the ids that sources of each org write: servers and skills by their row's id.
CREATE TEMPORARY TABLE backlog_capability ON COMMIT DROP AS
SELECT org_id, reference, capability.name, count(*) OVER (PARTITION BY org_id) AS capabilities,
       row_number() OVER (PARTITION BY org_id ORDER BY reference) - 1 AS ordinal,
       coalesce(
           (SELECT 'mcp:' || min(id::text) FROM mcp_servers AS server
            WHERE server.org_id = org.org_id AND reference = 'mcp:' || server.name),
           (SELECT 'skill:' || min(id::text) FROM skills AS skill
            WHERE skill.org_id = org.org_id AND reference = 'skill:' || skill.name),
           reference
       ) AS capability_id
FROM backlog_setting
CROSS JOIN jsonb_to_recordset(words -> 'capabilities') AS capability (reference text, name text)
CROSS JOIN backlog_org AS org;

CREATE TEMPORARY TABLE backlog_tool ON COMMIT DROP AS
SELECT org.org_id, tool.name, display_name, median_ms, error_percent, timeout_percent,
       capability_id, capability.name AS capability_name, count(*) OVER (PARTITION BY org.org_id) AS tools,
       row_number() OVER (PARTITION BY org.org_id ORDER BY tool.name) - 1 AS ordinal
FROM backlog_setting
CROSS JOIN jsonb_to_recordset(words -> 'tools') AS tool (
    name text, display_name text, capability text, weight integer, median_ms double precision,
    error_percent double precision, timeout_percent double precision
)
CROSS JOIN generate_series(1, weight)
CROSS JOIN backlog_org AS org
LEFT JOIN backlog_capability AS capability ON capability.org_id = org.org_id AND reference = tool.capability;

-- Created at even distances over 30 days less the 4 hours that the longest may last. A few orgs have most of them.
CREATE TEMPORARY TABLE backlog_session ON COMMIT DROP AS
SELECT n, pg_temp.made_id(created_at, n, 1) AS id, created_at, org_id,
       principals[1 + floor(pg_temp.draw(n, 2) * cardinality(users))::integer] AS principal_id,
       CASE WHEN pg_temp.draw(n, 3) < 0.9
           THEN users[1 + floor(pg_temp.draw(n, 2) * cardinality(users))::integer] END AS user_id,
       CASE WHEN pg_temp.draw(n, 4) < 0.95
           THEN agents[1 + floor(pg_temp.draw(n, 5) * cardinality(agents))::integer] END AS agent_id,
       harnesses[1 + floor(pg_temp.draw(n, 6) * cardinality(harnesses))::integer] AS harness_id,
       CASE WHEN pg_temp.draw(n, 7) < 0.2 THEN md5('app' || org_id || n % 3)::uuid END AS app_id,
       CASE WHEN pg_temp.draw(n, 8) < 0.25
           THEN words -> 'blueprints' ->> (n % jsonb_array_length(words -> 'blueprints'))::integer END AS blueprint_id,
       CASE WHEN pg_temp.draw(n, 9) < 0.45 THEN 'completed'
           WHEN pg_temp.draw(n, 9) < 0.83 THEN 'idle'
           WHEN pg_temp.draw(n, 9) < 0.89 THEN 'paused'
           WHEN pg_temp.draw(n, 9) < 0.92 THEN 'waiting_for_tool_results'
           WHEN pg_temp.draw(n, 9) < 0.97 THEN 'failed'
           ELSE 'cancelled' END AS status,
       1 + floor(pg_temp.draw(n, 10) * 7)::integer AS turns, budgets
FROM (
    SELECT n, now - interval '30 days'
            + interval '716 hours' * ((n - pg_temp.draw(n, 11)) / sessions) AS created_at, words
    FROM backlog_setting, generate_series(first, last) AS n
) AS session
JOIN backlog_org AS org ON org.ordinal = floor(org.orgs * pg_temp.draw(n, 12) * pg_temp.draw(n, 12));
ANALYZE backlog_session;

-- The user thinks for a while, then the turn runs; at most 7 turns of at most 30 minutes with the thinking.
CREATE TEMPORARY TABLE backlog_turn ON COMMIT DROP AS
SELECT turn.*, ended_at - duration_ms * interval '1 ms' AS started_at, pg_temp.made_id(ended_at, key, 20) AS id
FROM (
    SELECT turn.*, created_at
               + interval '1 ms' * sum(think_ms + duration_ms) OVER (PARTITION BY n ORDER BY t) AS ended_at
    FROM (
        SELECT n, t, n * 8 + t AS key, session.id AS session_id, org_id, created_at,
               CASE t WHEN 1 THEN 1500 ELSE least(pg_temp.around(n * 8 + t, 21, 180000, 1), 1200000) END AS think_ms,
               least(pg_temp.around(n * 8 + t, 22, 21000, 0.9), 600000) AS duration_ms,
               CASE WHEN pg_temp.draw(n * 8 + t, 23) < 0.93 THEN 'turn.completed'
                   WHEN pg_temp.draw(n * 8 + t, 23) < 0.98 THEN 'turn.failed'
                   ELSE 'turn.cancelled' END AS ending,
               least(6, floor(pg_temp.draw(n * 8 + t, 24) * 8))::integer AS tools
        FROM backlog_session AS session, generate_series(1, turns) AS t
    ) AS turn
) AS turn;
ANALYZE backlog_turn;

-- A turn without tools takes one generation; with them two to four, the last of which answers.
CREATE TEMPORARY TABLE backlog_generation ON COMMIT DROP AS
SELECT generation.*, pg_temp.made_id(at, key, 30) AS id, name AS model, provider,
       CASE WHEN writes_cache THEN pg_temp.around(key, 31, 1100, 0.7) ELSE 0 END AS cache_creation_tokens,
       pg_temp.around(key, 32, 650, 0.7) + (output_tokens * token_ms)::bigint AS duration_ms,
       input_price / 1e6 AS input_price, output_price / 1e6 AS output_price
FROM (
    SELECT turn.n, turn.t, turn.key * 4 + g AS key, session_id, org_id, turn.id AS turn_id,
           started_at + duration_ms * (g + 0.6) / generations * interval '1 ms' AS at,
           CASE WHEN g < generations - 1 THEN 'tool_calls'
               WHEN pg_temp.draw(turn.key, 33) < 0.03 THEN 'length' ELSE 'stop' END AS finish_reason,
           pg_temp.around(turn.key * 4 + g, 34, 900, 0.7) AS input_tokens,
           pg_temp.around(turn.key * 4 + g, 35, 220, 0.9) AS output_tokens,
           (t * 2 + g - 2) * pg_temp.around(turn.key * 4 + g, 36, 1800, 0.7) AS cache_read_tokens,
           -- A session keeps to its model, but for some calls.
           CASE WHEN pg_temp.draw(turn.key * 4 + g, 37) < 0.08 THEN pg_temp.draw(turn.key * 4 + g, 38)
               ELSE pg_temp.draw(n, 39) END AS model_draw
    FROM backlog_turn AS turn,
         LATERAL (
             SELECT CASE tools WHEN 0 THEN 1
                 ELSE 2 + floor(3 * pg_temp.draw(turn.key, 40) * pg_temp.draw(turn.key, 40))::integer END AS generations
         ) AS _,
         generate_series(0, generations - 1) AS g
) AS generation
JOIN backlog_model AS model ON model.ordinal = floor(models * model_draw);
ANALYZE backlog_generation;

-- A debit for most generations, and now and then a credit with a turn.
CREATE TEMPORARY TABLE backlog_posting ON COMMIT DROP AS
SELECT pg_temp.made_id(at, key, salt) AS id, posting.*, principal_id, user_id, agent_id, harness_id,
       CASE WHEN pg_temp.draw(key, salt + 1) < 0.85
           THEN budgets[1 + floor(pg_temp.draw(key, salt + 2) * cardinality(budgets))::integer] END AS budget_id
FROM (
    SELECT n, key, 50 AS salt, session_id, org_id, at + interval '4 ms' AS at, 'llm_tokens' AS meter_source,
           'llm_generation' AS ref_type,
           (input_tokens + 0.1 * cache_read_tokens + 1.25 * cache_creation_tokens) * input_price
               + output_tokens * output_price AS amount
    FROM backlog_generation
    WHERE pg_temp.draw(key, 56) < 0.95
    UNION ALL
    SELECT n, key, 53, session_id, org_id, ended_at + interval '9 ms', 'manual', 'refund',
           -round((0.01 + 5 * pg_temp.draw(key, 57))::numeric, 2)
    FROM backlog_turn
    WHERE pg_temp.draw(key, 58) < 0.02
) AS posting
JOIN backlog_session AS session USING (n, org_id);
