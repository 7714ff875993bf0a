-- How many jobs are not finished; a finished one has moved to pgqueuer_log. Takes nothing.
SELECT count(*) FROM pgqueuer
