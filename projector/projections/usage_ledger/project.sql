-- Projects postings of the usage ledger (contract: facts.md). Person, agent and harness come from the ledger row, app
-- and blueprint from its session.
--
-- Takes  $1 bigint[] org ids and $2 text[] ledger row ids, in pairs; $3 boolean overwrite.
-- Gives  rows (outcome, name, count, org_id, source_id): `existing` and `gone` name a source, `written` counts by
--        dataset.
-- First pass ($3 false): inserts the facts that are not there yet, locks those that are, and names their sources.
-- Second pass ($3 true), for these alone: their facts are locked, so what it reads is the newest; it overwrites them.
WITH input AS MATERIALIZED (
    SELECT DISTINCT given.org_id, given.source_id::uuid AS posting_id
    FROM unnest($1::bigint[], $2::text[]) AS given (org_id, source_id)
),
posting AS MATERIALIZED (
    SELECT input.org_id, input.posting_id, 'usage_ledger:' || input.posting_id AS source_key, found.*
    FROM input
    LEFT JOIN LATERAL (
        SELECT
            l.session_id, l.user_id, l.principal_id, l.agent_id, a.name::text AS agent_name_snapshot, l.harness_id,
            h.name::text AS harness_name_snapshot, s.app_id, s.blueprint_id::text AS blueprint_id, l.created_at,
            l.budget_id, b.subject_type::text AS budget_subject_type, b.subject_id::text AS budget_subject_id,
            l.currency::text AS currency, l.meter_source::text AS meter_source, l.ref_type::text AS ref_type, l.amount
        FROM usage_ledger AS l
        LEFT JOIN budgets AS b ON b.id = l.budget_id AND b.org_id = input.org_id
        LEFT JOIN sessions AS s ON s.id = l.session_id AND s.org_id = input.org_id
        LEFT JOIN agents AS a ON a.id = l.agent_id AND a.org_id = input.org_id
        LEFT JOIN harnesses AS h ON h.id = l.harness_id AND h.org_id = input.org_id
        WHERE l.id = input.posting_id AND l.org_id = input.org_id
        LIMIT 1
    ) AS found ON true
),
written AS (
    INSERT INTO fact_budget_posting AS f (
        org_id, source_key, session_id, user_id, principal_id, agent_id, agent_name_snapshot, harness_id,
        harness_name_snapshot, app_id, blueprint_id, created_at, time_bucket_day, budget_id, budget_subject_type,
        budget_subject_id, currency, meter_source, ref_type, amount, debit_count, credit_count, projected_at
    )
    SELECT
        p.org_id, p.source_key, p.session_id, p.user_id, p.principal_id, p.agent_id, p.agent_name_snapshot,
        p.harness_id, p.harness_name_snapshot, p.app_id, p.blueprint_id, p.created_at,
        (p.created_at AT TIME ZONE 'UTC')::date, p.budget_id, p.budget_subject_type, p.budget_subject_id, p.currency,
        p.meter_source, p.ref_type, p.amount, CASE WHEN p.amount >= 0 THEN 1 ELSE 0 END,
        CASE WHEN p.amount < 0 THEN 1 ELSE 0 END, clock_timestamp()
    FROM posting AS p
    WHERE p.created_at IS NOT NULL
    ORDER BY p.org_id, p.source_key
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
    WHERE $3
    RETURNING f.org_id, f.source_key
)
SELECT 'existing' AS outcome, NULL AS name, NULL::bigint AS count, org_id, posting_id::text AS source_id
FROM posting
WHERE created_at IS NOT NULL AND (org_id, source_key) NOT IN (SELECT org_id, source_key FROM written)
UNION ALL
SELECT 'gone', NULL, NULL, org_id, posting_id::text FROM posting WHERE created_at IS NULL
UNION ALL
SELECT 'written', 'budget_postings', count(*), NULL, NULL FROM written
