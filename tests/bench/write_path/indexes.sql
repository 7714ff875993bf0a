-- How many indexes the outbox has, and how many triggers of ours. Takes nothing.
SELECT
    (SELECT count(*) FROM pg_index WHERE indrelid = 'reporting_outbox'::regclass) AS indexes,
    (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'reporting_outbox'::regclass AND NOT tgisinternal) AS triggers
