-- Takes the backlog away for a while. Takes nothing.
CREATE TABLE bench_backlog AS TABLE reporting_outbox;
TRUNCATE reporting_outbox
