"""Connections and transactions: the one place that opens either."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import asyncpg

from projector.settings import SharedSettings

APPLICATION_NAME = "reporting-projector"

# What every batch runs under, as one round trip and few statements. READ COMMITTED whatever the database's default: a
# second pass must see what was committed before its locks were granted. Constraints are checked at once, so that they
# fail the row and not the commit. Index scans alone, and no JIT: rows come in an index's order and the first few cost
# a few, whatever the statistics say or fail to say. JIT is ruled out by its cost: the driver switches `jit` itself,
# back to what it finds here, and that would stay behind in a pooler's session. Plans do not depend on a batch's rows,
# so none is made for these alone. The commit does not wait for the disk: facts and settled rows go or stay together,
# so what a crash of the server takes back is projected again. A transaction left idle is ended by the server, and so
# is one whose client has died in the midst of a statement: a stopped or killed process does not keep its rows.
_BEGIN = """
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET CONSTRAINTS ALL IMMEDIATE;
SELECT
    set_config('statement_timeout', '{statement_ms}', true),
    set_config('lock_timeout', '{lock_ms}', true),
    set_config('idle_in_transaction_session_timeout', '{idle_ms}', true),
    set_config('client_connection_check_interval', '1s', true),
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('jit_above_cost', '-1', true),
    set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('synchronous_commit', 'off', true),
    set_config('work_mem', '32MB', true)
"""
# The driver prepares statements of more than 15 KB anew each time unless it is told not to; that of events is longer.
_ANY_SIZE = 0
_LOCK_TIMEOUT_SECONDS = 10.0
_IDLE_TIMEOUT_SECONDS = 60.0
_SHORTEST_IDLE_TIMEOUT_SECONDS = 5.0
# The server ends a statement after its timeout: an answer that comes so much later is lost on the way.
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long one statement, one wait for a lock, and idleness inside a transaction may last, in seconds.

    Idleness no longer than a statement: where the network swallows all, the server keeps the rows until then.
    """

    statement: float
    lock: float = _LOCK_TIMEOUT_SECONDS
    idle: float = _IDLE_TIMEOUT_SECONDS

    def begin_statement(self) -> str:
        """The statements that open a batch's transaction."""
        idle = min(self.idle, max(self.statement, _SHORTEST_IDLE_TIMEOUT_SECONDS))
        return _BEGIN.format(
            statement_ms=round(self.statement * 1000), lock_ms=round(self.lock * 1000), idle_ms=round(idle * 1000)
        )


async def _keep_as_is(_: asyncpg.Connection) -> None:
    # Nothing outlives a transaction here, so a connection needs no reset between two batches: a round trip less.
    return


async def open_pool(
    settings: SharedSettings, size: int, *, at_once: bool = True, application_name: str = APPLICATION_NAME,
    init: Callable[[asyncpg.Connection], Awaitable[None]] = _keep_as_is,
) -> asyncpg.Pool:  # fmt: skip
    """Opens a pool of up to `size` connections.

    Args:
        settings: where the database is, and how long a statement may take.
        size: the most connections.
        at_once: whether the first is made now; if not, each is made when it is needed, and nothing is raised here.
        application_name: what the server calls them, as in pg_stat_activity.
        init: run on each new connection; what it raises, whoever wanted the connection gets.

    Raises:
        OSError, asyncpg.PostgresError: the database cannot be reached, or refuses.
    """
    return await asyncpg.create_pool(
        settings.database_url.get_secret_value(),
        min_size=int(at_once),
        max_size=size,
        timeout=10,
        command_timeout=settings.reporting_statement_timeout_secs + _ANSWER_SECONDS,
        statement_cache_size=settings.reporting_statement_cache_size,
        max_cacheable_statement_size=_ANY_SIZE,
        max_inactive_connection_lifetime=0,
        server_settings={"application_name": application_name},
        init=cast("Any", init),  # the driver's stubs want a parameter of a certain name
        reset=_keep_as_is,
    )


async def connect(settings: SharedSettings) -> asyncpg.Connection:
    """Opens one connection of its own. It keeps no prepared statements, as a pooler may stand in between.

    Raises:
        OSError, asyncpg.PostgresError: the database cannot be reached, or refuses.
    """
    return await asyncpg.connect(
        settings.database_url.get_secret_value(),
        timeout=10,
        statement_cache_size=0,
        server_settings={"application_name": APPLICATION_NAME},
    )


@asynccontextmanager
async def acquire(pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    """Lends a connection of the pool.

    Raises:
        OSError, asyncpg.PostgresError: a new connection was needed, and the database cannot be reached, or refuses.
    """
    async with pool.acquire() as pooled:
        connection = cast("asyncpg.Connection", pooled)
        try:
            yield connection
        except TimeoutError:
            # No answer came: neither would one to a polite goodbye. It may have been ended, and given back, already.
            with suppress(asyncpg.InterfaceError):
                connection.terminate()
            raise


@asynccontextmanager
async def transaction(connection: asyncpg.Connection, timeouts: Timeouts) -> AsyncIterator[None]:
    """Runs its body in a transaction of the kind that batches need: committed at the end, rolled back on any error.

    Raises:
        asyncpg.ReadOnlySQLTransactionError: a standby answers. The connection is given up with it: after a failover the
            address may lead to another server than it did when the connection was made.
    """
    try:
        await connection.execute(timeouts.begin_statement())
    except asyncpg.FeatureNotSupportedError as error:  # how a standby refuses READ WRITE
        connection.terminate()
        raise asyncpg.ReadOnlySQLTransactionError(str(error)) from error
    try:
        yield
    except TimeoutError:
        # No answer came: neither would one to ROLLBACK. The server rolls back when it finds out.
        connection.terminate()
        raise
    except BaseException:
        await _roll_back(connection)
        raise
    await connection.execute("COMMIT")


@asynccontextmanager
async def operator_transaction(connection: asyncpg.Connection, timeouts: Timeouts) -> AsyncIterator[None]:
    """A transaction whose statements are planned for their very parameters: an org, or none, decides on the index."""
    async with transaction(connection, timeouts):
        await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        yield


async def _roll_back(connection: asyncpg.Connection) -> None:
    try:
        await connection.execute("ROLLBACK")
    except Exception:  # noqa: BLE001 - the error that led here is the one to report
        # The server rolls back by itself when it loses the connection.
        connection.terminate()


class Savepoint:
    """A transaction's one savepoint, set anew for each attempt with as few round trips as possible.

    The one before is released with the same round trip: attempts do not lie within each other.
    """

    def __init__(self, connection: asyncpg.Connection) -> None:
        """Args: connection: inside a transaction that this savepoint ends with."""
        self.connection = connection
        self._set = "SAVEPOINT projection"

    @asynccontextmanager
    async def undone_on_error(self) -> AsyncIterator[None]:
        """What its body did is undone on an error of the database, and the error raised."""
        if self._set:
            await self.connection.execute(self._set)
        self._set = "RELEASE SAVEPOINT projection; SAVEPOINT projection"
        try:
            yield
        except asyncpg.PostgresError:
            if not self.connection.is_closed():
                await self.connection.execute("ROLLBACK TO SAVEPOINT projection")
            self._set = ""  # it stands as it was set
            raise
