-- Enqueues sources (contract: outbox.md, enqueuing the same work again).
--
-- Takes  $1 text source type; $2 text reason; $3 bigint[] org ids, $4 text[] source ids, $5 text[] versions.
-- Gives  how many it enqueued: a row that has come to wait meanwhile stays as it is.
-- Locks  the rows it writes. An application that inserts the same key waits for this transaction, which is short.
-- Plan   the outbox's unique index.
--
-- A row is due since seventy seconds before it was enqueued: among an org's newest rows are then those of the application
-- alone, which is what keeps a backfill from delaying them (claim.sql).
WITH enqueued AS (
    INSERT INTO reporting_outbox AS o (org_id, source_type, source_id, source_version, reason, next_attempt_at)
    SELECT given.org_id, $1, given.source_id, given.version, $2, now() - interval '70 seconds'
    FROM unnest($3::bigint[], $4::text[], $5::text[]) WITH ORDINALITY AS given (org_id, source_id, version, place)
    ORDER BY given.place
    ON CONFLICT (org_id, source_type, source_id, source_version, reason) DO UPDATE SET
        status = 'pending', attempts = 0, next_attempt_at = excluded.next_attempt_at, last_error = NULL,
        claimed_at = NULL, updated_at = now()
    WHERE o.status = 'completed'
    RETURNING 1
)
SELECT count(*) FROM enqueued
