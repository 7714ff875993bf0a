-- Brings back what scaling_postpone.sql took, and wakes who listens. Takes nothing.
INSERT INTO reporting_outbox TABLE bench_backlog;
SELECT pg_notify('reporting_outbox', '')
