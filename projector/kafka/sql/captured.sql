-- Which fact tables have the triggers that capture changes.
--
-- Takes nothing. Gives table_name and trigger_name, a row for each trigger; none before the migration. Locks nothing.
-- Plan   the catalog's own indexes.
SELECT class.oid::regclass::text AS table_name, trigger.tgname::text AS trigger_name
FROM pg_trigger AS trigger
JOIN pg_class AS class ON class.oid = trigger.tgrelid
WHERE trigger.tgfoid = to_regprocedure('reporting_capture_fact_changes()') AND trigger.tgenabled IN ('O', 'A')
