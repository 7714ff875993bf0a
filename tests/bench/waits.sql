-- Whether any row of an org waits. Takes $1 bigint org. Plan: the first entry of the due rows' index.
SELECT EXISTS (
    SELECT FROM reporting_outbox
    WHERE org_id = $1 AND status IN ('pending', 'failed') AND next_attempt_at < 'infinity'
)
