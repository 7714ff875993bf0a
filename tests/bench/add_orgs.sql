-- Adds organizations 1, 2, … Takes $1 integer: how many.
INSERT INTO organizations (org_id, public_id, name)
SELECT number, 'org_' || lpad(to_hex(number), 32, '0'), 'Org ' || number FROM generate_series(1, $1) AS number
