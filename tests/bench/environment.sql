-- The server's version and the settings that figures depend on, as one JSON object. Takes nothing.
SELECT json_object_agg(name, current_setting(name) ORDER BY name)
FROM pg_settings
WHERE name IN (
    'server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'wal_level', 'wal_compression', 'max_wal_size',
    'checkpoint_timeout', 'shared_buffers', 'work_mem', 'autovacuum', 'jit', 'random_page_cost', 'data_checksums',
    'io_method', 'max_connections'
)
