-- Indexes, each built without blocking writers and skipped where an index on the same columns is there already.
-- The part after USING is written as pg_get_indexdef() prints it: that is how sameness is told.

-- The due rows, oldest first: the claim and the backlog's gauges.
CREATE INDEX CONCURRENTLY reporting_outbox_due ON reporting_outbox USING btree (next_attempt_at, id) WHERE (status = ANY (ARRAY['pending'::text, 'failed'::text]));

-- The failed rows, latest first: status, requeue.
CREATE INDEX CONCURRENTLY reporting_outbox_failed ON reporting_outbox USING btree (updated_at, id) WHERE (status = 'failed'::text);

-- The leases of other programs: released when they are too old.
CREATE INDEX CONCURRENTLY reporting_outbox_leased ON reporting_outbox USING btree (claimed_at) WHERE (status = 'processing'::text);

-- fact_llm_generation: what readers rely on (facts.md), and freshness by org.
CREATE INDEX CONCURRENTLY fact_llm_generation_created ON fact_llm_generation USING btree (org_id, created_at);
CREATE INDEX CONCURRENTLY fact_llm_generation_day ON fact_llm_generation USING btree (org_id, time_bucket_day);
CREATE INDEX CONCURRENTLY fact_llm_generation_model ON fact_llm_generation USING btree (org_id, model, provider, created_at);
CREATE INDEX CONCURRENTLY fact_llm_generation_projected ON fact_llm_generation USING btree (org_id, projected_at);

-- fact_tool_call: what readers rely on (facts.md), and freshness by org.
CREATE INDEX CONCURRENTLY fact_tool_call_created ON fact_tool_call USING btree (org_id, created_at);
CREATE INDEX CONCURRENTLY fact_tool_call_day ON fact_tool_call USING btree (org_id, time_bucket_day);
CREATE INDEX CONCURRENTLY fact_tool_call_tool ON fact_tool_call USING btree (org_id, tool_name, tool_status, created_at);
CREATE INDEX CONCURRENTLY fact_tool_call_projected ON fact_tool_call USING btree (org_id, projected_at);

-- fact_turn: what readers rely on (facts.md), and freshness by org.
CREATE INDEX CONCURRENTLY fact_turn_created ON fact_turn USING btree (org_id, created_at);
CREATE INDEX CONCURRENTLY fact_turn_day ON fact_turn USING btree (org_id, time_bucket_day);
CREATE INDEX CONCURRENTLY fact_turn_status ON fact_turn USING btree (org_id, turn_status, created_at);
CREATE INDEX CONCURRENTLY fact_turn_projected ON fact_turn USING btree (org_id, projected_at);

-- fact_session: what readers rely on (facts.md), and freshness by org.
CREATE INDEX CONCURRENTLY fact_session_created ON fact_session USING btree (org_id, created_at);
CREATE INDEX CONCURRENTLY fact_session_day ON fact_session USING btree (org_id, time_bucket_day);
CREATE INDEX CONCURRENTLY fact_session_status ON fact_session USING btree (org_id, session_status, created_at);
CREATE INDEX CONCURRENTLY fact_session_projected ON fact_session USING btree (org_id, projected_at);

-- fact_budget_posting: what readers rely on (facts.md), and freshness by org.
CREATE INDEX CONCURRENTLY fact_budget_posting_created ON fact_budget_posting USING btree (org_id, created_at);
CREATE INDEX CONCURRENTLY fact_budget_posting_day ON fact_budget_posting USING btree (org_id, time_bucket_day);
CREATE INDEX CONCURRENTLY fact_budget_posting_budget ON fact_budget_posting USING btree (org_id, budget_id, created_at);
CREATE INDEX CONCURRENTLY fact_budget_posting_projected ON fact_budget_posting USING btree (org_id, projected_at);

-- fact_capability_usage: what readers rely on (facts.md), and freshness by org.
CREATE INDEX CONCURRENTLY fact_capability_usage_created ON fact_capability_usage USING btree (org_id, created_at);
CREATE INDEX CONCURRENTLY fact_capability_usage_day ON fact_capability_usage USING btree (org_id, time_bucket_day);
CREATE INDEX CONCURRENTLY fact_capability_usage_capability ON fact_capability_usage USING btree (org_id, capability_id, capability_usage_kind, created_at);
CREATE INDEX CONCURRENTLY fact_capability_usage_configured ON fact_capability_usage USING btree (org_id, session_id) WHERE (capability_usage_kind = 'configured'::text);

-- One source's facts by the prefix of their keys, whatever the database's collation.
CREATE INDEX CONCURRENTLY fact_capability_usage_prefix ON fact_capability_usage USING btree (org_id, source_key text_pattern_ops);
CREATE INDEX CONCURRENTLY fact_capability_usage_projected ON fact_capability_usage USING btree (org_id, projected_at);
