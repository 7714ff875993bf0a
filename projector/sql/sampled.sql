-- Estimates how many rows there are by source type and status: looks at evenly spaced pages of the table, all of them
-- where it has no more, and takes what it finds times the pages for each that it has looked at.
-- Takes  $1 bigint org, or null for all; $2 integer: how many pages.
-- Gives  source_type, status (pending, failed, dead, processing; completed too where an org is given), rows; oldest_due_at
--        and created_at of those that were found, as backlog.sql has them.
-- Plan   a scan of each page by its address: the cost is the same however large the table is.
--
-- Statistics would be free, but they are as old as the last autovacuum, which comes when a tenth of the table has changed:
-- on a large outbox that is more than any backlog. What waits stands together in a table, as it came: pages at even
-- distances meet it in proportion, where pages at random would miss it now and then.
WITH pages AS (
    SELECT size.pages, LEAST(size.pages, $2::bigint) AS taken
    FROM (
        SELECT pg_relation_size('reporting_outbox') / current_setting('block_size')::bigint AS pages
    ) AS size
)
SELECT
    looked.source_type, looked.kind AS status,
    round(count(*) * pages.pages::numeric / pages.taken)::bigint AS rows,
    min(looked.next_attempt_at) FILTER (WHERE looked.kind IN ('pending', 'failed') AND looked.next_attempt_at <= now())
        AS oldest_due_at,
    min(looked.created_at) AS created_at
FROM pages
CROSS JOIN LATERAL generate_series(0, pages.taken - 1) AS number
CROSS JOIN LATERAL (SELECT (2 * number + 1) * pages.pages / (2 * pages.taken) AS page) AS chosen
CROSS JOIN LATERAL (
    SELECT
        o.source_type, o.next_attempt_at, o.created_at,
        CASE WHEN o.status = 'failed' AND o.next_attempt_at = 'infinity' THEN 'dead' ELSE o.status END AS kind
    FROM reporting_outbox AS o
    WHERE o.ctid >= format('(%s,0)', chosen.page)::tid AND o.ctid < format('(%s,0)', chosen.page + 1)::tid
        AND CASE WHEN $1::bigint IS NULL THEN o.status <> 'completed' ELSE o.org_id = $1 END
    OFFSET 0
) AS looked
GROUP BY looked.source_type, looked.kind, pages.pages, pages.taken
