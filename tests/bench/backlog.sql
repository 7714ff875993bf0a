-- What the outbox holds. Takes nothing. Gives rows (kind, count); the kind is the source type, for events with the type of
-- the event behind a colon.
SELECT o.source_type || COALESCE(': ' || e.event_type, '') AS kind, count(*) AS count
FROM reporting_outbox AS o
LEFT JOIN events AS e ON o.source_type = 'event' AND e.id = o.source_id::uuid
GROUP BY kind
ORDER BY count DESC, kind
