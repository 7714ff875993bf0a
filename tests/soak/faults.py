"""What breaks now and then: a daemon, its connections, what it needs a lock on, the server."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

import asyncpg

from backfill_api.service import APPLICATION_NAME as API_NAME
from projector.database import APPLICATION_NAME
from tests.chaos.servers import ChaosServer
from tests.obstacles import opened
from tests.soak.processes import Programs

PROGRAM_NAMES = [APPLICATION_NAME, API_NAME]
FAULTS_OF_THE_DATABASE = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

_FACT_TABLES = ("fact_tool_call", "fact_turn", "fact_session", "fact_llm_generation", "fact_budget_posting")
_LOCKED_SECONDS, _PAUSED_SECONDS, _PINNED_SECONDS = 2.0, 3.0, 15.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What broke, and when, in seconds since the run began."""

    seconds: float
    name: str


@dataclass(slots=True)
class Faults:
    """Breaks one thing after another until it is cancelled.

    Attributes:
        server, programs: what is broken.
        random: decides what and when.
        mean_pause: between two faults, in seconds; none lasts longer.
        clock: seconds since the run began.
        happened: all faults so far.
        complaints: programs that did not take a fault as they should.
    """

    server: ChaosServer
    programs: Programs
    random: Random
    mean_pause: float
    clock: Callable[[], float]
    happened: list[Fault] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Breaks things, each after a pause."""
        kinds: list[tuple[str, Callable[[], Awaitable[None]], int]] = [
            ("daemon killed", self._kill, 3), ("daemon stopped", self._stop, 2), ("daemon paused", self._pause, 2),
            ("connections cut", self._cut, 3), ("facts locked", self._lock, 2), ("vacuum held back", self._pin, 1),
            ("server crashed", self._crash, 1),
        ]  # fmt: skip
        while True:
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * self.mean_pause)
            ((name, fault, _),) = self.random.choices(kinds, [weight for _, _, weight in kinds])
            self.happened.append(Fault(round(self.clock(), 1), name))
            with contextlib.suppress(*FAULTS_OF_THE_DATABASE):
                await fault()

    def _at_most(self, seconds: float) -> float:
        return min(seconds, self.mean_pause)

    async def _kill(self) -> None:
        await self.programs.replace(signal.SIGKILL)

    async def _stop(self) -> None:
        await self.programs.replaceable.has_logged("projecting")  # before that, a signal just ends it
        if status := await self.programs.replace(signal.SIGTERM):
            self.complaints.append(f"a stopped daemon ended with status {status}")

    async def _pause(self) -> None:
        self.programs.lasting.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(self._at_most(_PAUSED_SECONDS))
        finally:
            self.programs.lasting.send(signal.SIGCONT)

    async def _cut(self) -> None:
        """Ends half of the programs' server processes."""
        async with opened(self.server.dsn) as connection:
            records = await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE application_name = ANY ($1::text[]) ORDER BY pid", PROGRAM_NAMES
            )
            for record in self.random.sample(records, len(records) // 2):
                await connection.execute("SELECT pg_terminate_backend($1)", record["pid"])

    async def _lock(self) -> None:
        async with opened(self.server.dsn) as connection:
            table = self.random.choice(_FACT_TABLES)
            await connection.execute(f"SET lock_timeout = '5s'; BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(self._at_most(_LOCKED_SECONDS))
            await connection.execute("ROLLBACK")

    async def _pin(self) -> None:
        """A long transaction: no row that dies meanwhile is removed by vacuum."""
        async with opened(self.server.dsn) as connection:
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
            await asyncio.sleep(self._at_most(_PINNED_SECONDS))
            await connection.execute("ROLLBACK")

    async def _crash(self) -> None:
        await self.server.down()
        await self.server.up()
