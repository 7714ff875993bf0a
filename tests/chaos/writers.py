"""Applications that write at random: sources, and with each change its outbox row, in one transaction."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from uuid import UUID, uuid4

import asyncpg

from tests.platform_rows import add_event, add_generation, add_posting, add_session
from tests.scenes import Cast, add_cast

# As the application enqueues (contract: outbox.md).
_ENQUEUE = """
    INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING
"""
_ENQUEUE_SESSION = """
    INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)
    SELECT org_id, 'session', id::text, updated_at::text, 'session_snapshot' FROM sessions WHERE id = $1
    ON CONFLICT (org_id, source_type, source_id, source_version, reason) DO UPDATE
    SET status = 'pending', next_attempt_at = now(), updated_at = now()
    WHERE reporting_outbox.status IN ('completed', 'failed')
"""
_REASONS = {
    "event": "event_projection",
    "llm_generation": "llm_generation_projection",
    "usage_ledger": "budget_posting_projection",
}
FAULTS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
_MISTAKES = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError, asyncpg.SyntaxOrAccessError)
_FAULT_PAUSE = 0.05


@dataclass(slots=True)
class Pace:
    """How writers go about it.

    Attributes:
        writers: how many there are, each with a connection and sessions of its own.
        orgs: among how many orgs they are spread.
        pause: the mean pause between two transactions of one writer, in seconds.
        longest_commit: transactions commit up to so many seconds after they have written.
        rolled_back: the share of transactions that roll back at their end.
    """

    writers: int = 4
    orgs: int = 3
    pause: float = 0.01
    longest_commit: float = 0.0
    rolled_back: float = 0.1


@dataclass(slots=True)
class _Written:
    """What one writer knows to be committed, and may refer to."""

    sessions: list[UUID] = field(default_factory=list)
    generations: list[UUID] = field(default_factory=list)
    turns: list[tuple[UUID, str]] = field(default_factory=list)


@dataclass(slots=True)
class Writers:
    """Writes until `stop` is set. A fault of the database ends a transaction, never a writer.

    Attributes:
        dsn: of the database, as the application's role.
        random: decides all that is decided.
        committed: transactions that are known to be committed; others may be, too.
        faults: how often the database failed a writer.
    """

    dsn: str
    random: Random
    pace: Pace = field(default_factory=Pace)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    committed: int = 0
    faults: int = 0

    async def run(self) -> None:
        """Sets the orgs up, and writes."""
        connection = await asyncpg.connect(self.dsn)
        try:
            casts = [await add_cast(connection, org_id) for org_id in range(1, self.pace.orgs + 1)]
        finally:
            await connection.close()
        async with asyncio.TaskGroup() as group:
            for number in range(self.pace.writers):
                group.create_task(self._write(casts[number % len(casts)], Random(self.random.getrandbits(64))))

    async def _write(self, cast: Cast, random: Random) -> None:
        written = _Written()
        while not self.stop.is_set():
            try:
                connection = await asyncpg.connect(self.dsn, timeout=5, command_timeout=60)
            except FAULTS as error:
                await self._fault(error)
                continue
            try:
                while not self.stop.is_set():
                    await self._transaction(connection, cast, random, written)
                    await asyncio.sleep(random.expovariate(1 / self.pace.pause))
            except FAULTS as error:
                await self._fault(error)
            finally:
                connection.terminate()

    async def _fault(self, error: Exception) -> None:
        """Takes a fault of the moment as it comes; a mistake in this file is none."""
        if isinstance(error, _MISTAKES):
            raise error
        self.faults += 1
        await asyncio.sleep(_FAULT_PAUSE)

    async def _transaction(self, connection: asyncpg.Connection, cast: Cast, random: Random, written: _Written) -> None:
        news = _Written()
        kinds: list[tuple[Callable[..., Awaitable[None]], int]] = [
            (_start_session, 2), (_take_turn, 4), (_generate, 4), (_report_late_usage, 1), (_post, 3),
            (_change_session, 2), (_late_tool_call, 2),
        ]  # fmt: skip
        (kind,) = random.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        if not written.sessions:
            kind = _start_session
        transaction = connection.transaction()
        await transaction.start()
        await kind(connection, cast, random, written, news)
        if self.pace.longest_commit:
            await asyncio.sleep(random.uniform(0, self.pace.longest_commit))
        if random.random() < self.pace.rolled_back:
            await transaction.rollback()
            return
        await transaction.commit()
        self.committed += 1
        written.sessions += news.sessions
        written.generations += news.generations
        written.turns += news.turns


async def _enqueue(connection: asyncpg.Connection, org_id: int, source_type: str, source: UUID, more: str = "") -> None:
    await connection.execute(_ENQUEUE, org_id, source_type, str(source), f"{source}{more}", _REASONS[source_type])


async def _start_session(
    connection: asyncpg.Connection, cast: Cast, random: Random, _: _Written, news: _Written
) -> None:
    session = await add_session(
        connection, cast.org_id, agent_id=cast.agent, harness_id=cast.harness, app_id=uuid4(),
        capabilities=random.sample(["web", f"mcp:{cast.mcp_server}", f"skill:{cast.skill}", "shell"], 2),
    )  # fmt: skip
    await connection.execute(_ENQUEUE_SESSION, session)
    news.sessions.append(session)


async def _tool_call(connection: asyncpg.Connection, cast: Cast, random: Random, session: UUID, turn: str) -> None:
    data = {
        "turn_id": turn, "tool_call_id": uuid4().hex, "tool_name": random.choice(["read", "write", "run"]),
        "success": random.random() < 0.9, "duration_ms": random.randrange(5000), "capability_id": "web",
    }  # fmt: skip
    event = await add_event(connection, session, "tool.completed", json.dumps(data))
    await _enqueue(connection, cast.org_id, "event", event)


async def _take_turn(
    connection: asyncpg.Connection, cast: Cast, random: Random, written: _Written, news: _Written
) -> None:
    session, turn = random.choice(written.sessions), f"turn_{uuid4().hex}"
    calls = random.randrange(4)
    for _ in range(calls):
        await _tool_call(connection, cast, random, session, turn)
    usage = {"input_tokens": random.randrange(9000), "output_tokens": random.randrange(900)}
    data = {"turn_id": turn, "duration_ms": random.randrange(60_000), "iterations": calls, "usage": usage}
    ending = random.choice(["turn.completed", "turn.completed", "turn.failed", "turn.cancelled"])
    event = await add_event(connection, session, ending, json.dumps(data))
    await _enqueue(connection, cast.org_id, "event", event)
    await connection.execute(
        "UPDATE sessions SET turn_count = turn_count + 1, tool_call_count = tool_call_count + $2,"
        " total_input_tokens = total_input_tokens + $3 WHERE id = $1",
        session, calls, usage["input_tokens"],
    )  # fmt: skip
    await _touch(connection, session)
    news.turns.append((session, turn))


async def _late_tool_call(
    connection: asyncpg.Connection, cast: Cast, random: Random, written: _Written, _: _Written
) -> None:
    if written.turns:
        session, turn = random.choice(written.turns)
        await _tool_call(connection, cast, random, session, turn)
        await _touch(connection, session)


async def _generate(
    connection: asyncpg.Connection, cast: Cast, random: Random, written: _Written, news: _Written
) -> None:
    generation = await add_generation(
        connection, cast.org_id, session_id=random.choice(written.sessions), model=f"model-{random.randrange(5)}",
        provider="provider", input_tokens=random.randrange(9000), output_tokens=random.randrange(900),
        duration_ms=random.randrange(9000),
    )  # fmt: skip
    await _enqueue(connection, cast.org_id, "llm_generation", generation)
    news.generations.append(generation)


async def _report_late_usage(
    connection: asyncpg.Connection, cast: Cast, random: Random, written: _Written, _: _Written
) -> None:
    if written.generations:
        generation = written.generations.pop(random.randrange(len(written.generations)))
        await connection.execute(
            "UPDATE llm_generations SET output_tokens = output_tokens + 7 WHERE id = $1", generation
        )
        await _enqueue(connection, cast.org_id, "llm_generation", generation, ":late_usage")


async def _post(connection: asyncpg.Connection, cast: Cast, random: Random, written: _Written, _: _Written) -> None:
    posting = await add_posting(
        connection, cast.org_id, session_id=random.choice(written.sessions), agent_id=cast.agent,
        harness_id=cast.harness, budget_id=cast.budget, amount=random.randrange(-500, 5000) / 100,
    )  # fmt: skip
    await _enqueue(connection, cast.org_id, "usage_ledger", posting)


async def _change_session(
    connection: asyncpg.Connection, _cast: Cast, random: Random, written: _Written, _: _Written
) -> None:
    session = random.choice(written.sessions)
    status = random.choice(["active", "idle", "finished"])
    await connection.execute("UPDATE sessions SET status = $2 WHERE id = $1", session, status)
    await _touch(connection, session)


async def _touch(connection: asyncpg.Connection, session: UUID) -> None:
    """A session that has changed, or whose events have: a new version of it is enqueued."""
    await connection.execute("UPDATE sessions SET updated_at = clock_timestamp() WHERE id = $1", session)
    await connection.execute(_ENQUEUE_SESSION, session)
