-- How long each generation of one model waited until its fact could be seen, in seconds; null where it has none yet.
--
-- Takes  $1 text model.
-- Gives  from the commit of the transaction that wrote source and outbox row to the commit of the one that wrote the fact.
--        The server notes a commit's time just before it writes the commit to disk, so where writers wait for the disk that
--        wait is part of the lag, though nobody could have seen the row yet: what this gives is never too short.
-- Needs  track_commit_timestamp = on.
-- Plan   all generations, each with a probe of the facts' key.
SELECT extract(epoch FROM pg_xact_commit_timestamp(f.xmin) - pg_xact_commit_timestamp(g.xmin))::float8 AS lag
FROM llm_generations AS g
LEFT JOIN fact_llm_generation AS f ON f.org_id = g.org_id AND f.source_key = 'llm_generation:' || g.id
WHERE g.model = $1
