-- What claims have cost so far: statements that lock outbox rows and pass over those of others, and remove none.
-- Takes nothing. Gives calls, their milliseconds and the rows that they gave. Needs pg_stat_statements.
SELECT
    COALESCE(sum(calls), 0)::bigint AS claims, COALESCE(sum(total_exec_time), 0) AS claim_ms,
    COALESCE(sum(rows), 0)::bigint AS claimed
FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND query LIKE '%FOR UPDATE%SKIP LOCKED%' AND query LIKE '%reporting_outbox%' AND query NOT LIKE '%DELETE FROM%'
