"""What is measured. Each contestant runs on a fresh copy of the same database and tells how long it took."""

import time
from dataclasses import dataclass
from typing import Protocol

import structlog
from pydantic import SecretStr

from projector.batch import BatchResult
from projector.daemon import batch_size, worker_rules
from projector.database import open_pool
from projector.drain import drain
from projector.projections import load_registry
from projector.settings import Settings
from projector.sqlfile import load_sql
from tests.bench.baseline import RowAtATime
from tests.bench.stage import connected

_LIMIT_TABLES = ("tool_call", "turn", "capability_usage", "session", "llm_generation", "budget_posting")
_BASELINE_INDEX = load_sql(__file__, "baseline_index.sql")
# More than the projector allows itself: nothing of the limit's joins goes to disk.
_LIMIT_SETTINGS = "SET work_mem = '256MB'; SET jit = off"


class Contestant(Protocol):
    """One way of turning the backlog into facts."""

    @property
    def key(self) -> str:
        """Its name in ratios and results."""

    @property
    def title(self) -> str:
        """Its name for readers."""

    @property
    def settles(self) -> bool:
        """Whether it works on the outbox, and so leaves its rows completed."""

    async def run(self, dsn: str, rows: int) -> float:
        """Projects the outbox's first `rows` rows; gives the seconds it took."""
        ...


@dataclass(frozen=True, slots=True)
class Baseline:
    """Row at a time: claims 500, then for each row its own upserts and its own settle, each a commit."""

    key: str
    title: str
    waits_for_disk: bool
    settles: bool = True

    async def run(self, dsn: str, rows: int) -> float:
        """Projects the outbox's first `rows` rows."""
        async with connected(dsn) as connection:
            if not self.waits_for_disk:
                await connection.execute("SET synchronous_commit = off")
            await connection.execute(_BASELINE_INDEX)
            worker = await RowAtATime.prepare(connection)
            started = time.perf_counter()
            await worker.work(rows)
            return time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Projector:
    """The projector's own `drain`, with the defaults of its settings; without `keeps`, with a retention of 0."""

    key: str
    title: str
    workers: int
    keeps: bool = True

    @property
    def settles(self) -> bool:
        """Whether it leaves completed rows; with a retention of 0 it deletes them."""
        return self.keeps

    async def run(self, dsn: str, rows: int) -> float:
        """Drains all; `rows` must be all there are."""
        settings = default_settings(dsn)
        if not self.keeps:
            settings = settings.model_copy(update={"reporting_outbox_retention_secs": 0})
        pool = await open_pool(settings, self.workers)
        try:
            started = time.perf_counter()
            result = await drain(
                pool, worker_rules(settings, load_registry()), workers=self.workers,
                new_size=lambda: batch_size(settings), on_batch=_ignore, log=structlog.get_logger(),
            )  # fmt: skip
            seconds = time.perf_counter() - started
        finally:
            pool.terminate()
        if result.completed != rows:
            raise RuntimeError(f"of {rows} rows {result.completed} were completed, {result.failed} failed")
        return seconds


@dataclass(frozen=True, slots=True)
class Limit:
    """One INSERT … SELECT for each fact table over all sources: no outbox, no conflicts looked for, one stream."""

    key: str
    title: str
    tables: tuple[str, ...] = _LIMIT_TABLES
    settles: bool = False

    async def run(self, dsn: str, rows: int) -> float:  # noqa: ARG002 - it knows no rows, only all sources
        """Writes all facts of its tables."""
        async with connected(dsn) as connection:
            await connection.execute(_LIMIT_SETTINGS)
            started = time.perf_counter()
            for name in self.tables:
                await connection.execute(load_sql(__file__, f"limit/{name}.sql"))
            return time.perf_counter() - started


def default_settings(dsn: str) -> Settings:
    """The projector's settings with all their defaults, whatever the environment says."""
    return Settings.model_construct(database_url=SecretStr(dsn))


def _ignore(_: BatchResult, __: float) -> None:
    return
