-- Records how many rows an action has come to, in the transaction that came to them. Takes $1 uuid id; $2 bigint rows.
UPDATE reporting_actions SET rows = $2 WHERE id = $1
