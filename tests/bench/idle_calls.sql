-- How often each statement has run in a database, by its first words. Takes $1 text database.
-- Needs  the extension pg_stat_statements here, and pg_stat_statements.track not `none` there.
SELECT left(regexp_replace(query, '\s+', ' ', 'g'), 60) AS text, sum(calls)::bigint AS calls
FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = $1)
GROUP BY text
ORDER BY calls DESC
