-- Reports on the facts, written for DuckDB and ClickHouse alike (there: USE reporting). Each names the org it is for.

-- Tokens by day and model.
SELECT time_bucket_day, provider, model, sum(input_tokens) AS tokens_in, sum(output_tokens) AS tokens_out, sum(success_count) AS calls
FROM llm_generations
WHERE org_id = 1
GROUP BY time_bucket_day, provider, model
ORDER BY time_bucket_day, provider, model;

-- Tools that fail most often.
SELECT tool_name, sum(call_count) AS calls, sum(error_count) AS errors, sum(timeout_count) AS timeouts
FROM tool_calls
WHERE org_id = 1
GROUP BY tool_name
ORDER BY errors DESC, tool_name
LIMIT 20;

-- Turns by day: how many, how many went wrong, how long they took.
SELECT time_bucket_day, sum(turn_count) AS turns, sum(error_count) AS errors, quantile(duration_ms, 0.95) AS ms_p95
FROM turns
WHERE org_id = 1
GROUP BY time_bucket_day
ORDER BY time_bucket_day;

-- What sessions of each agent have used.
SELECT agent_name_snapshot, sum(session_count) AS sessions, sum(turn_count) AS turns, sum(total_tokens) AS tokens
FROM sessions
WHERE org_id = 1
GROUP BY agent_name_snapshot
ORDER BY tokens DESC, agent_name_snapshot;

-- What was charged to each budget, by currency.
SELECT budget_id, currency, sum(amount) AS amount, sum(debit_count) AS debits, sum(credit_count) AS credits
FROM budget_postings
WHERE org_id = 1
GROUP BY budget_id, currency
ORDER BY currency, amount DESC;

-- Capabilities that sessions have configured but never invoked.
SELECT capability_id, max(capability_name_snapshot) AS name, count(*) AS facts
FROM capability_usage
WHERE org_id = 1
GROUP BY capability_id
HAVING sum(CASE WHEN capability_usage_kind = 'invoked' THEN usage_count ELSE 0 END) = 0
ORDER BY facts DESC, capability_id;
