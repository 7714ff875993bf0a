"""A demonstration that needs nothing but this package: a private PostgreSQL and made-up traffic."""
