-- Leaves the outbox as the contract has it: drops all its indexes but those of its primary key and its unique key.
DO $body$
DECLARE
    extra regclass;
BEGIN
    FOR extra IN
        SELECT i.indexrelid::regclass
        FROM pg_index AS i
        WHERE i.indrelid = 'reporting_outbox'::regclass AND NOT i.indisprimary AND NOT i.indisunique
    LOOP
        EXECUTE format('DROP INDEX %s', extra);
    END LOOP;
END
$body$
