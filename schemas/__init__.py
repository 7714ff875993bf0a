"""What the projector and the backfill API share: models of rows and messages, and the SQL of the tables."""
