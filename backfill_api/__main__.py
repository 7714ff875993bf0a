"""`python -m backfill_api`."""

from backfill_api.main import main

main()
