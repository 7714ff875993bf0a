"""Drains the reporting outbox of an agent platform on PostgreSQL into flat fact tables."""
