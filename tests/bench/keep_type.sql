-- Leaves an outbox with the rows of one source type alone. Takes $1 text; gives how many these are.
WITH others AS (
    DELETE FROM reporting_outbox WHERE source_type <> $1
)
SELECT count(*) FROM reporting_outbox WHERE source_type = $1
