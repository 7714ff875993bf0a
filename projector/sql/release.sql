-- Releases rows whose lease another program took and let run out: 15 minutes, as the contract has it.
-- Takes  $1 integer: how many at the most. Gives the count.
-- Plan   reporting_outbox_leased, which holds leased rows alone.
WITH expired AS (
    SELECT id
    FROM reporting_outbox
    WHERE status = 'processing' AND COALESCE(claimed_at, updated_at) < now() - interval '15 minutes'
    ORDER BY claimed_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),
released AS (
    UPDATE reporting_outbox AS o
    SET status = 'pending', claimed_at = NULL, updated_at = now()
    WHERE o.id = ANY (ARRAY(SELECT id FROM expired))
    RETURNING 1
)
SELECT count(*) FROM released
