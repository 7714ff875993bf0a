-- How many rows of one org are completed: exactly up to a bound, beyond it estimated from the server's statistics.
-- Takes  $1 bigint org; $2 bigint the bound; $3 bigint: how many rows of the org are not completed.
-- Cost   at most so many rows of the org, completed or not, by the outbox's unique index.
SELECT
    CASE
        WHEN counted.rows <= $2 THEN counted.rows
        ELSE GREATEST(
            counted.rows,
            (COALESCE(NULLIF(pg_stat_get_live_tuples(class.oid), 0), class.reltuples::bigint) * share.of_org)::bigint - $3
        )
    END
FROM (
    SELECT GREATEST(count(*) - $3::bigint, 0) AS rows
    FROM (SELECT 1 FROM reporting_outbox WHERE org_id = $1 LIMIT $2::bigint + $3::bigint + 1) AS first
) AS counted
CROSS JOIN pg_class AS class
-- The org's share of all rows, where it is among the most common ones; else the bound stands.
CROSS JOIN LATERAL (
    SELECT COALESCE(max(common.frequency), 0) AS of_org
    FROM pg_stats AS s
    CROSS JOIN LATERAL unnest(s.most_common_vals::text::text[], s.most_common_freqs) AS common (value, frequency)
    WHERE s.tablename = 'reporting_outbox' AND s.attname = 'org_id' AND s.schemaname = class.relnamespace::regnamespace::text
        AND common.value = $1::text
) AS share
WHERE class.oid = 'reporting_outbox'::regclass
