"""`projector drain`: works until nothing is due, then tells what it did."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncpg
import structlog

from projector.batch import BatchResult, BatchRules
from projector.claims import Backlog, Claimer
from projector.worker import BatchSize, Worker

_MOST_FAULTS = 8


@dataclass(slots=True)
class DrainResult:
    """What a drain did: rows, facts by dataset, seconds."""

    claimed: int = 0
    completed: int = 0
    failed: int = 0
    dead: int = 0
    postponed: int = 0
    facts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, result: BatchResult) -> None:
        """Counts one batch."""
        self.claimed += result.claimed
        self.completed += result.completed_rows
        self.failed += len(result.failed)
        self.dead += result.dead_rows
        self.postponed += sum(result.postponed.values())
        for dataset, count in result.facts.items():
            self.facts[dataset] = self.facts.get(dataset, 0) + count


async def drain(
    pool: asyncpg.Pool,
    rules: BatchRules,
    *,
    workers: int,
    new_size: Callable[[], BatchSize],
    on_batch: Callable[[BatchResult, float], None],
    log: structlog.stdlib.BoundLogger,
) -> DrainResult:
    """Drains what is due with several workers at once.

    Args:
        pool: at least as many connections as workers.
        rules: how batches are run.
        workers: how many work at once.
        new_size: makes a worker's batch size.
        on_batch: told of each batch that was committed with rows, and its seconds.
        log: where faults are told.

    Raises:
        Exception: a fault of the database that lasted through several attempts, or whatever else ended a worker.
    """
    total = DrainResult()
    backlog = Backlog(time.monotonic, exact=True)
    started = time.monotonic()

    async def nothing_is_due() -> bool:
        return False

    def count(result: BatchResult, seconds: float) -> None:
        total.add(result)
        on_batch(result, seconds)

    def give_up_some_time(error: Exception, faults: int) -> None:
        if faults > _MOST_FAULTS:
            raise error

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                worker = Worker(
                    pool=pool, rules=rules, size=new_size(), stop=asyncio.Event(), rest=nothing_is_due, on_batch=count,
                    on_fault=give_up_some_time, log=log.bind(worker=number), claimer=Claimer(backlog),
                )  # fmt: skip
                group.create_task(worker.run())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    total.seconds = time.monotonic() - started
    return total
