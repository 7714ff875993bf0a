-- Writes due rows behind the backlog: of the org with the most rows, due since some ten minutes, which is after the whole
-- backlog. Other orgs get none: their backlogs may end before the rounds do, and what is drained then must be the same as
-- without these rows. Their sources do not exist, as none of them is to be drained. Takes $1 bigint: how many.
INSERT INTO reporting_outbox (
    org_id, source_type, source_id, source_version, reason, next_attempt_at, created_at, updated_at
)
SELECT
    most.org_id, (ARRAY['event', 'event', 'event', 'llm_generation', 'usage_ledger'])[1 + number % 5], made.id, made.id,
    'bench_behind', made.at, made.at, made.at
FROM (
    SELECT org_id FROM reporting_outbox WHERE status = 'pending' GROUP BY org_id ORDER BY count(*) DESC LIMIT 1
) AS most
CROSS JOIN generate_series(1, $1::bigint) AS number
CROSS JOIN LATERAL (
    SELECT reporting_uuid_v7()::text AS id, now() - interval '10 minutes' + number * interval '10 microseconds' AS at
) AS made
