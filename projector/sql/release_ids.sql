-- Gives leased rows back: no message about them got through.
-- Takes  $1 uuid[] ids. Gives how many were still leased.
-- Plan   reporting_outbox_pkey, an entry for each id. Were the status written as the index of leased rows has it, all of that
--        index might be read instead.
WITH released AS (
    UPDATE reporting_outbox
    SET status = 'pending', claimed_at = NULL, updated_at = now()
    WHERE id = ANY ($1::uuid[]) AND status NOT IN ('pending', 'completed', 'failed')
    RETURNING 1
)
SELECT count(*) FROM released
