-- Tells the scripts of one slice, for the length of its transaction, what to write.
-- Takes: $1 first and $2 last session of the slice, $3 sessions in all, $4 the time that counts as now (ISO 8601),
-- $5 the vocabulary (JSON). Triggers and foreign keys are off: the script writes what they would see to.
SELECT set_config('backlog.first', $1::bigint::text, true),
       set_config('backlog.last', $2::bigint::text, true),
       set_config('backlog.sessions', $3::bigint::text, true),
       set_config('backlog.now', $4::text, true),
       set_config('backlog.vocabulary', $5::text, true),
       set_config('session_replication_role', 'replica', true),
       set_config('work_mem', '64MB', true),
       set_config('jit', 'off', true);
