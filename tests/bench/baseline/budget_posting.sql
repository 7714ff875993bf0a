-- Upserts the fact of one posting.
-- Takes  $1 bigint org id; $2 uuid source id.
INSERT INTO fact_budget_posting (
    org_id, source_key, session_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, budget_id, budget_subject_type,
    budget_subject_id, currency, meter_source, ref_type, amount, debit_count, credit_count, projected_at
)
SELECT
    org_id, source_key, session_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
    harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, budget_id, budget_subject_type,
    budget_subject_id, currency, meter_source, ref_type, amount, debit_count, credit_count, clock_timestamp()
FROM bench_budget_posting
WHERE org_id = $1 AND id = $2
ON CONFLICT (org_id, source_key) DO UPDATE SET
    session_id = excluded.session_id, user_id = excluded.user_id, principal_id = excluded.principal_id,
    agent_id = excluded.agent_id, agent_name_snapshot = excluded.agent_name_snapshot,
    harness_id = excluded.harness_id, harness_name_snapshot = excluded.harness_name_snapshot,
    app_id = excluded.app_id, blueprint_id = excluded.blueprint_id, created_at = excluded.created_at,
    time_bucket_day = excluded.time_bucket_day, budget_id = excluded.budget_id,
    budget_subject_type = excluded.budget_subject_type, budget_subject_id = excluded.budget_subject_id,
    currency = excluded.currency, meter_source = excluded.meter_source, ref_type = excluded.ref_type,
    amount = excluded.amount, debit_count = excluded.debit_count, credit_count = excluded.credit_count,
    projected_at = excluded.projected_at
