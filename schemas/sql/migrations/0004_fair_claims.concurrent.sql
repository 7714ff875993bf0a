-- Indexes, each built without blocking writers and skipped where an index on the same columns is there already.
-- The part after USING is written as pg_get_indexdef() prints it: that is how sameness is told.

-- The due rows of each org, oldest first: the claim, which goes from org to org, and the backlog's gauges. Dead letters
-- are never due and not in it.
CREATE INDEX CONCURRENTLY reporting_outbox_due_by_org ON reporting_outbox USING btree (org_id, next_attempt_at, id) WHERE ((status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (next_attempt_at < 'infinity'::timestamp with time zone));

-- The failed rows of one org, latest first: what operators list and requeue.
CREATE INDEX CONCURRENTLY reporting_outbox_failed_by_org ON reporting_outbox USING btree (org_id, updated_at, id) WHERE (status = 'failed'::text);

-- The actions on one org, latest first.
CREATE INDEX CONCURRENTLY reporting_actions_by_org ON reporting_actions USING btree (org_id, id);

-- What the first of these replaces: every index costs each insert of the application.
DROP INDEX CONCURRENTLY IF EXISTS reporting_outbox_due;
