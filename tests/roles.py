"""The roles of deploy/sql/roles.sql in tests: each program connects as a user that is a member of its own role.

The DSN of a test's database names OWNER, a superuser, whom the tests themselves connect as: they write what the
platform would write. Whatever starts one of the programs exchanges that user for the program's, so that every such test
shows that the grants are enough. DSNs of other users stay as they are.
"""

from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import structlog

from projector.migrate import Migration, migrate

ROLES_SQL = Path(__file__).parents[1] / "deploy/sql/roles.sql"

OWNER, MIGRATE, PROJECTOR, API = "test_owner", "test_migrate", "test_projector", "test_api"
_GROUPS = {MIGRATE: "reporting_migrate", PROJECTOR: "reporting_projector", API: "reporting_api"}


def as_user(dsn: str, user: str) -> str:
    """The same database as another user, whose password is the same."""
    parts = urlsplit(dsn)
    credentials, at, address = parts.netloc.rpartition("@")
    password = credentials.partition(":")[1:]
    return parts._replace(netloc=user + "".join(password) + at + address).geturl()


def for_program(dsn: str, user: str) -> str:
    """The DSN that a program gets for a test's database."""
    return as_user(dsn, user) if urlsplit(dsn).username == OWNER else dsn


async def add_users(dsn: str) -> str:
    """Makes the users on a server, as yet without any right but the owner's; gives the DSN of the owner.

    Args:
        dsn: of a superuser.
    """
    connection = await asyncpg.connect(dsn)
    try:
        quoted = await connection.fetchval("SELECT quote_literal($1::text)", urlsplit(dsn).password or "unused")
        for user in (OWNER, *_GROUPS):
            rights = "SUPERUSER" if user == OWNER else "NOSUPERUSER"
            await connection.execute(f"CREATE ROLE {user} LOGIN {rights} PASSWORD {quoted}")
    finally:
        await connection.close()
    return as_user(dsn, OWNER)


async def grant(dsn: str) -> None:
    """Runs roles.sql on a database, as one script, and makes the users members of what it has made.

    Args:
        dsn: of the owner.
    """
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(ROLES_SQL.read_text(encoding="utf-8"))
        for user, group in _GROUPS.items():
            await connection.execute(f"GRANT {group} TO {user}")
        await connection.execute(f"ALTER ROLE {MIGRATE} SET role = '{_GROUPS[MIGRATE]}'")
    finally:
        await connection.close()


async def migrate_by_role(dsn: str) -> list[Migration]:
    """Migrates as roles.sql says: it, `projector migrate` by its own role, it again; gives what was applied.

    Args:
        dsn: of the owner.
    """
    await grant(dsn)
    connection = await asyncpg.connect(as_user(dsn, MIGRATE))
    try:
        applied = await migrate(connection, structlog.get_logger())
    finally:
        await connection.close()
    await grant(dsn)
    return applied
