"""Job queues as contestants: the same projecting, one job a row, as an engineer would otherwise build it.

Jobs are enqueued beforehand. Workers are processes of their own, as they are when deployed: each connects, says that it
is ready, and works from the word go until no job is left. `python -m tests.bench.peers <library>` is one such process.
"""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import uvloop  # comes with pgqueuer, whose own command runs on it

from projector.sqlfile import load_sql
from tests.bench.hands import Row
from tests.bench.peers_pgqueuer import PgQueuerJobs
from tests.bench.peers_procrastinate import ProcrastinateJobs
from tests.bench.stage import connected

_PROCESSES = 2  # as many as there are cores; more were slower with either
_FIRST_ROWS = load_sql(__file__, "peers/first_rows.sql")
_READY, _GO, _DONE = b"ready\n", b"go\n", b"done\n"


class Jobs(Protocol):
    """A job queue: how its jobs are made, and how they are worked off."""

    @property
    def name(self) -> str:
        """The library's."""

    @property
    def tables(self) -> Sequence[str]:
        """Those that hold jobs."""

    @property
    def left(self) -> str:
        """The statement that counts the jobs that are not finished."""

    async def enqueue(self, dsn: str, rows: Sequence[Row]) -> None:
        """Installs the tables, and enqueues a job for each row."""

    async def work(self, dsn: str, start: Callable[[], Awaitable[None]]) -> None:
        """Connects, awaits `start`, and works until no job is left."""


PGQUEUER, PROCRASTINATE = PgQueuerJobs(), ProcrastinateJobs()
_LIBRARIES: dict[str, Jobs] = {jobs.name: jobs for jobs in (PGQUEUER, PROCRASTINATE)}


@dataclass(frozen=True, slots=True)
class Peer:
    """A job queue's workers: one job for each row, which runs the upserts of the row-at-a-time baseline."""

    key: str
    title: str
    jobs: Jobs
    settles: bool = False  # its own table tells what is done

    async def run(self, dsn: str, rows: int) -> float:
        """Projects the outbox's first `rows` rows; the seconds are from the word go until all workers have ended."""
        await self._enqueue(dsn, rows)
        async with _workers(self.jobs.name, dsn) as workers:
            started = time.perf_counter()
            for worker in workers:
                _tell(worker, _GO)
            for worker in workers:
                await _hear(worker, _DONE)
            seconds = time.perf_counter() - started
        async with connected(dsn) as connection:
            if left := await connection.fetchval(self.jobs.left):
                raise RuntimeError(f"of {rows} jobs on {self.jobs.name} {left} were not finished")
        return seconds

    async def _enqueue(self, dsn: str, rows: int) -> None:
        async with connected(dsn) as connection:
            first = await connection.fetch(_FIRST_ROWS, rows)
            await self.jobs.enqueue(dsn, [(row["org_id"], row["source_type"], row["source_id"]) for row in first])
            # The start that all contestants have: statistics are there, and nothing is left to write back.
            for table in self.jobs.tables:
                await connection.execute(f"VACUUM (ANALYZE) {table}")
            await connection.execute("CHECKPOINT")


@asynccontextmanager
async def _workers(name: str, dsn: str) -> AsyncIterator[list[Process]]:
    """Worker processes that are ready to begin."""
    workers: list[Process] = []
    try:
        for _ in range(_PROCESSES):
            worker = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, name, stdin=PIPE, stdout=PIPE)
            workers.append(worker)
            _tell(worker, dsn.encode() + b"\n")  # not as an argument, which others could read
        for worker in workers:
            await _hear(worker, _READY)
        yield workers
    except BaseException:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
        raise
    finally:
        for worker in workers:
            await worker.communicate()


def _tell(worker: Process, line: bytes) -> None:
    assert worker.stdin
    worker.stdin.write(line)


async def _hear(worker: Process, expected: bytes) -> None:
    assert worker.stdout
    if await worker.stdout.readline() != expected:
        raise RuntimeError("a worker process ended before its time; its error is above")


async def _work(jobs: Jobs) -> None:
    dsn = sys.stdin.readline().strip()

    async def start() -> None:
        _say(_READY)
        await asyncio.to_thread(sys.stdin.readline)

    await jobs.work(dsn, start)
    _say(_DONE)


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_work(_LIBRARIES[sys.argv[1]]))
