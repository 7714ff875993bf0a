"""The service that operators call: backfill, run, diagnose, requeue (contract: http.md)."""
