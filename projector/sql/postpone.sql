-- Puts claimed rows off without using up an attempt: their projection is broken, they are not.
-- Takes  $1 tid[]: where the rows are; $2 text error; $3 float8 seconds until they are due again.
-- Plan   a TID scan.
UPDATE reporting_outbox
SET
    next_attempt_at = now() + interval '1 second' * $3::float8,
    last_error = left($2::text, 2000),
    updated_at = now()
WHERE ctid = ANY ($1::tid[])
