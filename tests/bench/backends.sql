-- The server processes of this database's programs. Takes $1 text: what they call themselves. Gives their numbers.
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1
