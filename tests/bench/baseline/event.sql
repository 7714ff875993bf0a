-- Reads what kind of event a row stands for, and whether a capability goes with it; nothing where the event is not
-- there, or another org's.
-- Takes  $1 bigint org id; $2 uuid event id.
SELECT e.event_type, COALESCE(e.data ->> 'capability_id', '') <> '' AS has_capability
FROM events AS e
JOIN sessions AS s ON s.id = e.session_id
WHERE e.id = $2 AND s.org_id = $1
