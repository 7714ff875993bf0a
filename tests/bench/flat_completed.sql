-- Writes completed rows as a year of events would have left them. Takes $1 bigint: how many.
INSERT INTO reporting_outbox (
    id, org_id, source_type, source_id, source_version, reason, status, next_attempt_at, created_at, updated_at
)
SELECT
    made.id, orgs.ids[1 + number % array_length(orgs.ids, 1)], 'event', made.id::text, made.id::text, 'event_projection',
    'completed', made.at, made.at, made.at
FROM (SELECT array_agg(org_id ORDER BY org_id) AS ids FROM organizations) AS orgs
CROSS JOIN generate_series(1, $1::bigint) AS number
CROSS JOIN LATERAL (
    SELECT
        (lpad(to_hex(number), 12, '0') || '7a0080000000' || lpad(to_hex(number * 2654435761 % 4294967296), 8, '0'))::uuid
            AS id,
        now() - interval '365 days' + number * interval '5 seconds' AS at
) AS made
