-- How many jobs are not finished, or failed; a successful one is deleted. Takes nothing.
SELECT count(*) FROM procrastinate_jobs
