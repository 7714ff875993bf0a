-- The indexes of the outbox as statements, to drop and to build again. Gives drop_it, build_it; constraints are dropped and
-- built as constraints.
SELECT
    CASE
        WHEN c.oid IS NULL THEN format('DROP INDEX %s', i.oid::regclass)
        ELSE format('ALTER TABLE reporting_outbox DROP CONSTRAINT %I', c.conname)
    END AS drop_it,
    CASE
        WHEN c.oid IS NULL THEN pg_get_indexdef(i.oid)
        ELSE format('ALTER TABLE reporting_outbox ADD CONSTRAINT %I %s', c.conname, pg_get_constraintdef(c.oid))
    END AS build_it
FROM pg_index AS x
JOIN pg_class AS i ON i.oid = x.indexrelid
LEFT JOIN pg_constraint AS c ON c.conindid = i.oid AND c.conrelid = x.indrelid
WHERE x.indrelid = 'reporting_outbox'::regclass
ORDER BY c.conname IS NULL, i.relname
