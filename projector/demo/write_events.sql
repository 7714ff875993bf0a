-- Appends events to a session and enqueues each.
-- Takes: $1 org, $2 session, $3 the first event's sequence, and for each event: $4 types, $5 data, $6 contexts (JSON).
-- Gives: for each event, in that order, its id and whether an outbox row was written.
WITH written AS (
    INSERT INTO events (session_id, sequence, event_type, data, context, ts)
    SELECT $2::uuid, $3::integer + event.position::integer - 1, event.event_type, event.data, event.context,
           clock_timestamp()
    FROM unnest($4::text[], $5::jsonb[], $6::jsonb[]) WITH ORDINALITY AS event (event_type, data, context, position)
    RETURNING id, sequence
), enqueued AS (
    INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)
    SELECT $1::bigint, 'event', id::text, id::text, 'event_projection' FROM written ORDER BY sequence
    ON CONFLICT (org_id, source_type, source_id, source_version, reason) DO NOTHING
    RETURNING source_id
)
SELECT written.id, enqueued.source_id IS NOT NULL AS enqueued
FROM written LEFT JOIN enqueued ON enqueued.source_id = written.id::text
ORDER BY written.sequence;
