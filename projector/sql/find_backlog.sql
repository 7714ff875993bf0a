-- Looks for orgs that have due rows, one after another in the order of their ids, from the bottom of each.
--
-- Takes  $1 bigint: the org after which to begin; $2 integer: how many orgs to look at.
-- Gives  of each org that has rows that wait: org_id; next_attempt_at and id of the first one; whether it is due, and whether
--        it has been for so long that it is not just being projected by another worker.
-- Plan   a probe of reporting_outbox_due_by_org for each org.
WITH RECURSIVE ring AS (
    SELECT first.*, 1 AS position
    FROM (
        SELECT o.org_id, o.next_attempt_at, o.id
        FROM reporting_outbox AS o
        WHERE o.status IN ('pending', 'failed') AND o.next_attempt_at < 'infinity' AND o.org_id > $1
        ORDER BY o.org_id, o.next_attempt_at, o.id
        LIMIT 1
    ) AS first
    UNION ALL
    SELECT following.*, ring.position + 1
    FROM ring
    CROSS JOIN LATERAL (
        SELECT o.org_id, o.next_attempt_at, o.id
        FROM reporting_outbox AS o
        WHERE o.status IN ('pending', 'failed') AND o.next_attempt_at < 'infinity' AND o.org_id > ring.org_id
        ORDER BY o.org_id, o.next_attempt_at, o.id
        LIMIT 1
    ) AS following
    WHERE ring.position < $2
)
SELECT
    org_id, next_attempt_at, id, next_attempt_at <= now() AS is_due,
    next_attempt_at <= now() - interval '1 second' AS is_old
FROM ring
