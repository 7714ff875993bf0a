-- Leases claimed rows to whoever reads the messages about them: `processing`, until they are settled or 15 minutes are over.
-- Takes  $1 tid[]: where the rows are, which their locks keep as it is.
-- Gives  for each row its id, and the key and the value of its message (schemas/messages.py), as compact JSON.
-- Plan   a TID scan.
UPDATE reporting_outbox AS o
SET status = 'processing', claimed_at = now(), updated_at = now()
WHERE o.ctid = ANY ($1::tid[])
RETURNING
    o.id,
    (SELECT row_to_json(k)::text FROM (SELECT o.org_id, o.source_type, o.source_id) AS k) AS key,
    (
        SELECT row_to_json(m)::text
        FROM (
            SELECT
                '1.0' AS schema_version, o.id, o.org_id, o.source_type, o.source_id, o.source_version, o.reason,
                o.created_at
        ) AS m
    ) AS value
