-- Settles claimed rows as failed: due again after a backoff, or, where attempts are used up, a dead letter.
-- Takes  $1 tid[], where the rows are, and $2 text[] errors, in pairs; $3 integer attempts before a row is a dead letter.
-- Gives  the rows with their attempts, and whether they are dead now.
-- Backoff (outbox.md): 30 s x 2^attempts with 10 % jitter either way, at most 1 h.
-- Plan   a TID scan; the errors are looked up in one document, as a join might read the whole table.
UPDATE reporting_outbox AS o
SET
    status = 'failed',
    attempts = LEAST(o.attempts, 2147483646) + 1,
    last_error = left(
        (
            SELECT jsonb_object_agg(failed.tid::text, failed.error)
            FROM unnest($1::tid[], $2::text[]) AS failed (tid, error)
            WHERE failed.tid IS NOT NULL
        ) ->> o.ctid::text,
        2000
    ),
    claimed_at = NULL,
    updated_at = now(),
    next_attempt_at = CASE
        WHEN LEAST(o.attempts, 2147483646) + 1 >= $3::integer THEN 'infinity'::timestamptz
        ELSE now() + interval '1 second' * LEAST(
            3600, LEAST(3600, 30 * power(2, LEAST(o.attempts + 1, 7))) * (0.9 + 0.2 * random())
        )
    END
WHERE o.ctid = ANY ($1::tid[])
RETURNING o.id, o.org_id, o.source_type, o.source_id, o.attempts, o.next_attempt_at = 'infinity' AS dead
