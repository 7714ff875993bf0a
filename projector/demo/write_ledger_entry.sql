-- Posts an amount to the usage ledger and enqueues it.
-- Takes: $1 org, $2 budget, $3 session, $4 user, $5 principal, $6 agent, $7 harness (each but the org may be null),
-- $8 currency, $9 amount (positive = debit), $10 meter source, $11 ref type.
-- Gives: how many outbox rows were written.
WITH written AS (
    INSERT INTO usage_ledger (org_id, budget_id, session_id, user_id, principal_id, agent_id, harness_id, currency,
                              amount, meter_source, ref_type)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    RETURNING id, org_id
), enqueued AS (
    INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)
    SELECT org_id, 'usage_ledger', id::text, id::text, 'budget_posting_projection' FROM written
    ON CONFLICT (org_id, source_type, source_id, source_version, reason) DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM enqueued;
