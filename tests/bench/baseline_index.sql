-- The index that this claim reads, in place of the one that the projector's claim reads: each has one.
DROP INDEX reporting_outbox_due, reporting_outbox_due_by_org;
CREATE INDEX baseline_due ON reporting_outbox (next_attempt_at, id) WHERE status IN ('pending', 'failed');
