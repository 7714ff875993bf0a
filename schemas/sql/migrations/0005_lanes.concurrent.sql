-- Indexes, each built without blocking writers and skipped where an index on the same columns is there already.
-- The part after USING is written as pg_get_indexdef() prints it: that is how sameness is told.

-- The due rows of all orgs, in the order in which they became due: the claim of fresh rows, whose cost does not depend on
-- how many orgs there are, and which begins where the last one ended. Attempts are never below 0: saying so keeps statements
-- that name an org, and say nothing of attempts, from reading this index instead of the one by org.
CREATE INDEX CONCURRENTLY reporting_outbox_due ON reporting_outbox USING btree (next_attempt_at, id) WHERE ((status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (next_attempt_at < 'infinity'::timestamp with time zone) AND (attempts >= 0));
