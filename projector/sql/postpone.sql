-- Puts claimed rows off without using up an attempt: their projection does not fit, or something is in their way.
-- Takes  $1 tid[]: where the rows are; $2 text error; $3 float8: due again after so many seconds at the most, half of them at
--        the least: spread, so that what is in the way of some is not in the same batch with the same others again.
-- Plan   a TID scan.
UPDATE reporting_outbox
SET
    status = CASE status WHEN 'processing' THEN 'pending' ELSE status END,
    claimed_at = NULL,
    next_attempt_at = now() + interval '1 second' * $3::float8 * (0.5 + random() / 2),
    last_error = left($2::text, 2000),
    updated_at = now()
WHERE ctid = ANY ($1::tid[])
