-- The changelog: which facts were changed and are not yet published to Kafka. Nothing is written here before
-- `projector changelog enable` has put triggers on the fact tables.

-- One row for each statement that changed facts, up to 1,000 of them. What their facts are now is read when they are published.
CREATE TABLE reporting_fact_changes (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset text NOT NULL,
    org_ids bigint[] NOT NULL,
    source_keys text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One row: who publishes, and the last version that was given to a message.
CREATE TABLE reporting_changelog_publisher (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder uuid,
    renewed_at timestamptz NOT NULL DEFAULT '-infinity',
    version bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- What the triggers call, with the dataset as their argument. Whoever writes facts needs no right on the table of changes.
SELECT set_config('search_path', current_setting('search_path') || ', pg_temp', true);
CREATE FUNCTION reporting_capture_fact_changes() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path FROM CURRENT
    AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format(
            'INSERT INTO reporting_fact_changes (dataset, org_ids, source_keys)
            SELECT $1, array_agg(org_id), array_agg(source_key)
            FROM (SELECT org_id, source_key, (row_number() OVER () - 1) / 1000 AS slice FROM %I.%I) AS numbered
            GROUP BY slice',
            TG_TABLE_SCHEMA, TG_TABLE_NAME
        ) USING TG_ARGV[0];
    ELSIF TG_LEVEL = 'ROW' THEN -- a key was changed: no statement's new rows tell the old one
        INSERT INTO reporting_fact_changes (dataset, org_ids, source_keys)
        VALUES (TG_ARGV[0], ARRAY[OLD.org_id], ARRAY[OLD.source_key]);
    ELSE
        INSERT INTO reporting_fact_changes (dataset, org_ids, source_keys)
        SELECT TG_ARGV[0], array_agg(org_id), array_agg(source_key)
        FROM (SELECT org_id, source_key, (row_number() OVER () - 1) / 1000 AS slice FROM changed) AS numbered
        GROUP BY slice;
    END IF;
    RETURN NULL;
END
$$;
