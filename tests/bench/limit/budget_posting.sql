-- All postings of the ledger.
-- Takes nothing.
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
