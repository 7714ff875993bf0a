-- What the server knows of a database: transactions so far, and the processes of its connections. Takes $1 text database.
SELECT
    (SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1) AS transactions,
    ARRAY (SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend') AS pids
