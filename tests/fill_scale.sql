-- Makes the outbox large behind what fill.sql has written: 150,000 completed and 45,000 due rows more, so that it holds
-- 200,000 and 50,000. Takes nothing.
SET session_replication_role = replica;
INSERT INTO reporting_outbox (
    org_id, source_type, source_id, reason, status, next_attempt_at, created_at, updated_at
)
SELECT
    1 + number % 20, (ARRAY['event', 'session', 'llm_generation', 'usage_ledger'])[1 + number % 4], number::text,
    'scale_' || kind.status, kind.status, kind.at, kind.at, kind.at
FROM (VALUES ('completed', 150000, now() - interval '1 day'), ('pending', 45000, now() - interval '10 minutes'))
    AS kind (status, rows, at)
CROSS JOIN LATERAL generate_series(1, kind.rows) AS number;
SET session_replication_role = origin;
