-- What the backfill API keeps: how far backfills have come, and the record of what operators did.

-- One row for each backfill that several calls make: where its next call goes on. Rows that nobody has used for an hour
-- are forgotten. Updated often and never indexed otherwise, so it stays on its page (HOT).
CREATE TABLE IF NOT EXISTS reporting_backfill_progress (
    scope text PRIMARY KEY,
    position jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- The audit: one row for each operator action.
CREATE TABLE IF NOT EXISTS reporting_actions (
    id uuid PRIMARY KEY DEFAULT reporting_uuid_v7(),
    operation text NOT NULL,
    actor text NOT NULL,
    org_id bigint,
    parameters jsonb NOT NULL,
    rows bigint NOT NULL DEFAULT 0,
    outcome text NOT NULL DEFAULT 'running' CHECK (outcome IN ('running', 'done', 'partial', 'refused', 'failed')),
    request_id text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
