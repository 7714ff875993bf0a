"""The audit: a record of each operator action, in a table and in the log."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import structlog

from projector.database import acquire
from projector.errors import describe, is_database_fault
from projector.sqlfile import load_sql
from schemas.operations import Action, Operation, Outcome

START = load_sql(__file__, "sql/start_action.sql")
COUNT = load_sql(__file__, "sql/count_action.sql")
FINISH = load_sql(__file__, "sql/finish_action.sql")
LIST = load_sql(__file__, "sql/list_actions.sql")

AFTER_ALL = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for an operation: the caller's name, and the request's id."""

    actor: str
    request_id: str


@dataclass(slots=True)
class Record:
    """The record of an action that is at work.

    Attributes:
        id: its key.
        connection: for all that the action does: it needs no other, so that many at once cannot wait for each other's.
        outcome: how it ends unless an error ends it.
        rows: outbox rows that it came to; None where `count` has told them already.
    """

    id: UUID
    connection: asyncpg.Connection
    outcome: Outcome = Outcome.DONE
    rows: int | None = None

    async def count(self, connection: asyncpg.Connection, rows: int) -> None:
        """Records how many rows it has come to, in the transaction that came to them: they stand or fall together."""
        await connection.execute(COUNT, self.id, rows)


@dataclass(frozen=True, slots=True)
class Audit:
    """Keeps the records of operator actions."""

    pool: asyncpg.Pool
    log: structlog.stdlib.BoundLogger

    @asynccontextmanager
    async def action(
        self, operation: Operation, origin: Origin, org_id: int | None, parameters: Mapping[str, object]
    ) -> AsyncIterator[Record]:
        """Records an action: that it begins, and how it ended. An action whose record cannot be begun is not done.

        Raises:
            asyncpg.PostgresError, OSError: the record could not be begun; nothing was done.
        """
        given = json.dumps(parameters)
        log = self.log.bind(
            action=operation.value, actor=origin.actor, org_id=org_id, parameters=parameters,
            request_id=origin.request_id,
        )  # fmt: skip
        record = None
        try:
            async with acquire(self.pool) as connection:
                started = await connection.fetchval(START, operation, origin.actor, org_id, given, origin.request_id)
                record = Record(started, connection)
                yield record
                await connection.execute(FINISH, record.id, record.outcome, record.rows)
        except BaseException as error:
            if record is not None:
                await self._note_failure(record, log)
                say = log.error if isinstance(error, Exception) else log.warning
                say("operator action failed; what it had done stands", action_id=str(record.id), error=describe(error))
            raise
        log.info("operator action", action_id=str(record.id), outcome=record.outcome.value, rows=record.rows)

    async def _note_failure(self, record: Record, log: structlog.stdlib.BoundLogger) -> None:
        try:
            async with acquire(self.pool) as connection:
                await connection.execute(FINISH, record.id, Outcome.FAILED, record.rows)
        except Exception as error:
            if not is_database_fault(error):
                raise
            log.warning("an action's end was not recorded, its record stays `running`", error=describe(error))


async def list_actions(connection: asyncpg.Connection, org_id: int | None, before: UUID, limit: int) -> list[Action]:
    """Actions on one org, or all there were (None), the latest first, that began before the one named."""
    records = await connection.fetch(LIST, org_id, before, limit)
    return [Action(**{**record, "parameters": json.loads(record["parameters"])}) for record in records]
