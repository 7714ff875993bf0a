-- Records that an operator action has begun.
-- Takes  $1 text operation; $2 text actor; $3 bigint org, or null for all; $4 jsonb parameters; $5 text request id.
-- Gives  the record's id.
INSERT INTO reporting_actions (operation, actor, org_id, parameters, request_id)
VALUES ($1, $2, $3, $4::jsonb, $5)
RETURNING id
