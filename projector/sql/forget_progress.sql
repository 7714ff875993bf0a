-- Forgets how far a backfill has come: the next one starts anew. Takes $1 text scope. Plan: the key.
DELETE FROM reporting_backfill_progress WHERE scope = $1
