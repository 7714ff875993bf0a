-- Records how an action ended. Takes $1 uuid id; $2 text outcome; $3 bigint rows, or null to keep those recorded.
UPDATE reporting_actions SET outcome = $2, rows = COALESCE($3, rows), finished_at = clock_timestamp() WHERE id = $1
