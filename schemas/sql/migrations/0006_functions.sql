-- Functions that every row goes through, in forms that the planner expands in place: a call of an SQL function that it cannot
-- expand costs more than all the rest of a small row's projection.

-- What makes a text fit an index: its first 200 characters and its SHA-256.
CREATE OR REPLACE FUNCTION reporting_shorten(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT left(value, 200) || '#' || encode(sha256(convert_to(value, 'UTF8')), 'hex') $$;

-- Text that fits an index: longer than 1,000 bytes, it is shortened. A text that has the form of a shortened one already is
-- shortened too, so that no two texts become the same. The same function as before: only what is rarely needed stands apart.
CREATE OR REPLACE FUNCTION reporting_fit(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT CASE
            WHEN octet_length(value) <= 1000 AND NOT (length(value) = 265 AND substr(value, 201, 1) = '#') THEN value
            ELSE reporting_shorten(value)
        END
    $$;

-- Whether a source id is a UUID, with or without hyphens but not in braces. The server's own check costs a sixth of what a
-- pattern costs; PostgreSQL has it since 16.
DO $body$
BEGIN
    IF current_setting('server_version_num')::integer >= 160000 THEN
        CREATE OR REPLACE FUNCTION reporting_is_uuid(value text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
            AS $function$ SELECT pg_input_is_valid(value, 'uuid') AND value NOT LIKE '{%' $function$;
    ELSE
        CREATE OR REPLACE FUNCTION reporting_is_uuid(value text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
            AS $function$ SELECT value ~ '^([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}$' $function$;
    END IF;
END
$body$;
