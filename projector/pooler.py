"""Finds out whether the way to the database leads through a connection pooler, and whether that shares sessions.

A pooler answers a client itself when it connects, so the server process that it names is not the one that later does
the work. With transaction pooling, each transaction gets any server session: prepared statements, session-level locks,
LISTEN and SET are then left behind in a session of somebody else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import asyncpg
import structlog

from projector.database import connect
from projector.errors import PoolerError
from projector.settings import SharedSettings

_ROUNDS = 5
_WAIT_SECONDS = 10.0

_Kind = TypeVar("_Kind", bound=SharedSettings)


async def is_pooled(connection: asyncpg.Connection) -> bool:
    """Whether somebody stands between us and the server."""
    with _given_up_in_time(connection):
        async with connection.transaction():
            return await _server_process(connection) != connection.get_server_pid()


async def shares_sessions(
    connection: asyncpg.Connection, connect_again: Callable[[], Awaitable[asyncpg.Connection]]
) -> bool:
    """Whether server sessions are shared among clients, as with transaction pooling.

    Seen to be so where another connection gets the session that this one has just used, or this one gets another.

    Args:
        connection: not inside a transaction.
        connect_again: opens another one to the same database.

    Raises:
        OSError, asyncpg.PostgresError: the database cannot be reached, or refuses.
    """
    if not await is_pooled(connection):
        return False
    other = await connect_again()
    try:
        with _given_up_in_time(connection, other):
            return await _meet(connection, other)
    finally:
        other.terminate()


@contextmanager
def _given_up_in_time(*connections: asyncpg.Connection) -> Iterator[None]:
    """Ends connections whose answers do not come: what waits for one, a ROLLBACK too, then fails as on a lost one."""

    def give_up() -> None:
        for connection in connections:
            connection.terminate()

    timer = asyncio.get_running_loop().call_later(_WAIT_SECONDS, give_up)
    try:
        yield
    finally:
        timer.cancel()


async def _meet(connection: asyncpg.Connection, other: asyncpg.Connection) -> bool:
    """Whether one of two connections gets the other's server session, or another than it had."""
    for _ in range(_ROUNDS):
        async with connection.transaction():
            ours = await _server_process(connection)
        async with other.transaction():
            if await _server_process(other) == ours:
                return True
            async with connection.transaction():
                if await _server_process(connection) != ours:
                    return True
    return False


async def refuse_shared_sessions(connection: asyncpg.Connection, settings: SharedSettings) -> None:
    """For a program that needs sessions of its own.

    Raises:
        PoolerError: sessions are shared.
    """
    if await shares_sessions(connection, lambda: connect(settings)):
        raise PoolerError


async def fitted(settings: _Kind, log: structlog.stdlib.BoundLogger) -> _Kind:
    """The settings, without prepared statements where a pooler is found, unless somebody has set that by hand.

    Raises:
        OSError, asyncpg.PostgresError: the database cannot be reached, or refuses.
    """
    connection = await connect(settings)
    try:
        pooled = await is_pooled(connection)
    finally:
        connection.terminate()
    by_hand = "reporting_statement_cache_size" in settings.model_fields_set
    if not pooled or settings.reporting_statement_cache_size == 0:
        return settings
    if by_hand:
        log.warning(
            "prepared statements are kept behind a connection pooler: it must support them; if not, set"
            " REPORTING_STATEMENT_CACHE_SIZE=0",
            size=settings.reporting_statement_cache_size,
        )
        return settings
    log.info(
        "a connection pooler was found, so no prepared statements are kept; where it supports them, set"
        " REPORTING_STATEMENT_CACHE_SIZE=100"
    )
    return settings.model_copy(update={"reporting_statement_cache_size": 0})


async def _server_process(connection: asyncpg.Connection) -> int:
    """The process that does the work, inside a transaction: outside, the two halves of a statement may part."""
    # Without a name, as one may be taken by a statement that another client has left in this session.
    statement = await connection.prepare("SELECT pg_backend_pid()", name="", timeout=_WAIT_SECONDS)
    return int(await statement.fetchval(timeout=_WAIT_SECONDS))
