-- Which of the rows that a claim by ids was to take it has passed over because somebody else held them.
--
-- Takes  $1 uuid[] ids, as claim_ids.sql; $2 tid[] where the rows are that it claimed, in the same transaction.
-- Gives  the ids of those that are due or leased still; they are to be claimed again. Another relay's claim may hold a row
--        that has just been leased: it meets the row while it is pending for it, waits for nobody, and then keeps the lock.
-- Plan   reporting_outbox_pkey, an entry for each id; asked only where a claim gave fewer rows than it was named.
SELECT o.id
FROM reporting_outbox AS o
WHERE o.id = ANY ($1::uuid[])
    AND (o.status = 'processing' OR o.status IN ('pending', 'failed') AND o.next_attempt_at <= now())
    AND NOT EXISTS (SELECT FROM unnest($2::tid[]) AS claimed (tid) WHERE claimed.tid = o.ctid)
