-- What the slice has written, from its temporary tables.
SELECT (SELECT count(*) FROM backlog_session) AS sessions,
       (SELECT count(*) FROM backlog_event) AS events,
       (SELECT count(*) FROM backlog_generation) AS llm_generations,
       (SELECT count(*) FROM backlog_posting) AS ledger_entries,
       (SELECT count(*) FROM backlog_session) + (SELECT count(*) FROM backlog_event)
           + (SELECT count(*) FROM backlog_generation) + (SELECT count(*) FROM backlog_posting) AS outbox_rows;
