-- Captures a fact table's changes from now on, as one script for one table.
--
-- Takes  {table}: the table; {dataset}: its dataset, as a literal. Gives nothing.
-- Locks  the table against writing, until the transaction ends.
CREATE OR REPLACE TRIGGER reporting_changelog_insert AFTER INSERT ON {table}
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION reporting_capture_fact_changes({dataset});
CREATE OR REPLACE TRIGGER reporting_changelog_update AFTER UPDATE ON {table}
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION reporting_capture_fact_changes({dataset});
CREATE OR REPLACE TRIGGER reporting_changelog_delete AFTER DELETE ON {table}
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION reporting_capture_fact_changes({dataset});
-- A key that changes is rare, and new rows do not tell the old one.
CREATE OR REPLACE TRIGGER reporting_changelog_key AFTER UPDATE ON {table} FOR EACH ROW
    WHEN ((OLD.org_id, OLD.source_key) IS DISTINCT FROM (NEW.org_id, NEW.source_key))
    EXECUTE FUNCTION reporting_capture_fact_changes({dataset});
CREATE OR REPLACE TRIGGER reporting_changelog_truncate BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION reporting_capture_fact_changes({dataset});
