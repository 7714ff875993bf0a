-- Claims due rows, fairly: org after org in a ring, and in each org the oldest rows and, in a smaller share, the newest.
--
-- Takes  $1 integer: how many rows; $2 bigint: the org after which the ring goes on; $3 integer: how many orgs to look
--        at, at most a quarter of $1.
-- Gives  the rows, some of them twice, and a few more than $1 where they do not divide evenly; `is_uuid` tells whether source_id can be cast to uuid. Its last row has no id:
--        there org_id is the last org that was looked at, null where the ring ended, and attempts how many they were.
-- Locks  the rows it gives, until the transaction ends: the lock is the lease. Rows that others hold are passed over.
-- Plan   index scans of reporting_outbox_due_by_org, each ending with a limit: a probe for each org, then its rows from
--        either end. The conditions are literals to match that index.
--
-- Why three picks. `oldest` is the queue. `newest` are rows that became due within the last minute: live ones, which an
-- org's own backlog must not delay. Those of a backfill became due earlier, however fast it enqueues (enqueue.sql), and a
-- backlog without live rows is claimed in its order alone: two workers that took it from both ends would meet in the same
-- sessions, and wait for each other. `more` gives what orgs with few rows leave over to those that have more, so that a
-- batch is nearly full unless the orgs are very unequal.
WITH RECURSIVE ring AS (
    SELECT first.org_id, first.next_attempt_at, 1 AS position
    FROM (
        SELECT o.org_id, o.next_attempt_at
        FROM reporting_outbox AS o
        WHERE o.status IN ('pending', 'failed') AND o.next_attempt_at < 'infinity' AND o.org_id > $2
        ORDER BY o.org_id, o.next_attempt_at, o.id
        LIMIT 1
    ) AS first
    UNION ALL
    SELECT following.org_id, following.next_attempt_at, ring.position + 1
    FROM ring
    CROSS JOIN LATERAL (
        SELECT o.org_id, o.next_attempt_at
        FROM reporting_outbox AS o
        WHERE o.status IN ('pending', 'failed') AND o.next_attempt_at < 'infinity' AND o.org_id > ring.org_id
        ORDER BY o.org_id, o.next_attempt_at, o.id
        LIMIT 1
    ) AS following
    WHERE ring.position < $3
),
due AS MATERIALIZED (
    SELECT org_id, count(*) OVER () AS orgs FROM ring WHERE next_attempt_at <= now()
),
newest AS MATERIALIZED (
    SELECT picked.*
    FROM due
    CROSS JOIN LATERAL (
        SELECT o.id, o.org_id, o.source_type, o.source_id, o.attempts
        FROM reporting_outbox AS o
        WHERE o.status IN ('pending', 'failed') AND o.next_attempt_at < 'infinity' AND o.next_attempt_at <= now()
            AND o.next_attempt_at > now() - interval '60 seconds' AND o.org_id = due.org_id
        ORDER BY o.next_attempt_at DESC, o.id DESC
        LIMIT $1 / 4 / due.orgs
        FOR UPDATE SKIP LOCKED
    ) AS picked
),
-- What is left is shared evenly.
oldest AS MATERIALIZED (
    SELECT picked.*, shared.share
    FROM due
    CROSS JOIN (SELECT GREATEST($1 - count(*), 1) AS rows FROM newest) AS left_over
    CROSS JOIN LATERAL (SELECT GREATEST(left_over.rows / due.orgs, 1) AS share) AS shared
    CROSS JOIN LATERAL (
        SELECT o.id, o.org_id, o.source_type, o.source_id, o.attempts, o.next_attempt_at
        FROM reporting_outbox AS o
        WHERE o.status IN ('pending', 'failed') AND o.next_attempt_at < 'infinity' AND o.next_attempt_at <= now()
            AND o.org_id = due.org_id
        ORDER BY o.next_attempt_at, o.id
        LIMIT shared.share
        FOR UPDATE SKIP LOCKED
    ) AS picked
),
-- The orgs that may have more than their share, with the last row of it.
hungry AS MATERIALIZED (
    SELECT org_id, next_attempt_at, id, count(*) OVER () AS orgs
    FROM (
        SELECT
            org_id, next_attempt_at, id, share,
            row_number() OVER (PARTITION BY org_id ORDER BY next_attempt_at, id) AS position
        FROM oldest
    ) AS numbered
    WHERE position = share
),
more AS MATERIALIZED (
    SELECT picked.*
    FROM hungry
    CROSS JOIN (
        SELECT $1 - count(*) AS rows FROM (SELECT id FROM newest UNION SELECT id FROM oldest) AS claimed
    ) AS left_over
    CROSS JOIN LATERAL (
        SELECT o.id, o.org_id, o.source_type, o.source_id, o.attempts
        FROM reporting_outbox AS o
        WHERE o.status IN ('pending', 'failed') AND o.next_attempt_at < 'infinity' AND o.next_attempt_at <= now()
            AND o.org_id = hungry.org_id AND (o.next_attempt_at, o.id) > (hungry.next_attempt_at, hungry.id)
        ORDER BY o.next_attempt_at, o.id
        LIMIT ceil(left_over.rows::float8 / hungry.orgs)
        FOR UPDATE SKIP LOCKED
    ) AS picked
    WHERE left_over.rows > 0
)
SELECT
    id, org_id, source_type, source_id, attempts,
    source_id ~ '^([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}$' AS is_uuid
FROM (
    SELECT id, org_id, source_type, source_id, attempts FROM oldest
    UNION ALL
    SELECT * FROM newest
    UNION ALL
    SELECT * FROM more
) AS picked
UNION ALL
SELECT NULL, CASE WHEN count(*) = $3 THEN max(org_id) END, NULL, NULL, count(*)::integer, NULL FROM ring
