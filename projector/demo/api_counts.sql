-- Counts what operators did over the backfill API since the demo began.
-- Gives  enqueued, projected: outbox rows.
-- Plan   the whole table of actions, which people fill by hand.
SELECT
    coalesce(sum(rows) FILTER (WHERE operation = 'backfill_reporting'), 0)::bigint AS enqueued,
    coalesce(sum(rows) FILTER (WHERE operation = 'run_projector'), 0)::bigint AS projected
FROM reporting_actions
