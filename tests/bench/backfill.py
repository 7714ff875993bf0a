"""Backfills at scale: whether each call costs the same, and whether live rows wait for what was backfilled."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from statistics import median, quantiles
from typing import Any

import asyncpg
import structlog
from rich.console import Console

from projector.batch import BatchResult
from projector.daemon import batch_rules, batch_size
from projector.database import open_pool
from projector.demo.backlog import write_backlog
from projector.demo.embedded import database_dsn
from projector.demo.seed import seed_platform
from projector.drain import drain
from projector.migrate import migrate
from projector.projections import load_registry
from projector.sqlfile import load_sql
from tests.api import RunningApi, running_api
from tests.bench.contestants import default_settings
from tests.bench.stage import SOURCES_SQL, connected
from tests.daemons import running, settings_for
from tests.platform_rows import add_org

COUNT_FACTS = load_sql(__file__, "count_facts.sql")
WRITE_LIVE = load_sql(__file__, "write_live.sql")
WRITE_SMALL_BACKLOG = load_sql(__file__, "write_small_backlog.sql")
SEEN = load_sql(__file__, "seen.sql")
WAITS = load_sql(__file__, "waits.sql")

_DATABASE = "projector_bench_backfill"
_ORGS = 4
_SEED = 20260501
_WORKERS = 2
_BY_ALL = {"org_id": "*"}
_LOOK_SECONDS = 0.01
_LIVE_EVERY_SECONDS = 0.02
_QUIET_ORG = 9001
_SMALL_ORG = 9002
_SMALL_BACKLOG = 2_000


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured, and what must be reached.

    Attributes:
        sessions: how many there are, about 60 facts and 40 sources that give facts each.
        call_limit: rows that each call enqueues.
        live_seconds: how long live rows come behind the backlog.
        most_last_to_first: how many times as long as the first call the last may take.
        most_live_seconds: how long a live row may wait behind the backlog.
        most_small_seconds: how long another org's small backlog may.
        must_outlive: whether the backlog must last longer than the live rows: else they are behind nothing.
    """

    sessions: int
    call_limit: int
    live_seconds: float
    most_last_to_first: float = 2.0
    most_live_seconds: float = 2.0
    most_small_seconds: float = 5.0
    must_outlive: bool = True


@dataclass(slots=True)
class Calls:
    """The calls of one backfill: what each enqueued, and the seconds it took."""

    enqueued: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def last_to_first(self) -> float:
        """How many times as long as the first call the last took, which found that nothing is left."""
        return self.seconds[-1] / self.seconds[0]

    @property
    def slowest_to_first(self) -> float:
        """The same of the slowest."""
        return max(self.seconds) / self.seconds[0]


@dataclass(slots=True)
class Delays:
    """Seconds from a live row's commit to its visible fact."""

    seconds: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        """The delay that one row in a hundred exceeds."""
        return quantiles(self.seconds, n=100)[98]

    def as_json(self) -> dict[str, float]:
        """Milliseconds."""
        named = {"median": median(self.seconds), "p99": self.p99, "max": max(self.seconds)}
        return {"rows": len(self.seconds)} | {f"{name}_ms": round(value * 1000, 1) for name, value in named.items()}


@dataclass(slots=True)
class BackfillFigures:
    """What was measured."""

    scale: Scale
    environment: dict[str, Any]
    facts: int = 0
    calls: Calls = field(default_factory=Calls)
    drained_seconds: float = 0.0
    backlog: int = 0
    left: int = 0
    alone: dict[str, Delays] = field(default_factory=dict)
    behind: dict[str, Delays] = field(default_factory=dict)
    small_alone_seconds: float = 0.0
    small_behind_seconds: float = 0.0

    @property
    def targets(self) -> dict[str, tuple[float, float]]:
        """What was measured, and the most that it may be."""
        slowest = max(max(delays.seconds) for delays in self.behind.values())
        return {
            "last call / first call": (self.calls.last_to_first, self.scale.most_last_to_first),
            "slowest live row behind the backlog, s": (slowest, self.scale.most_live_seconds),
            "small org's rows behind the backlog, s": (self.small_behind_seconds, self.scale.most_small_seconds),
        }

    @property
    def reached(self) -> bool:
        """Whether all targets were."""
        outlived = self.left > 0 or not self.scale.must_outlive
        return outlived and all(measured <= most for measured, most in self.targets.values())

    def as_json(self) -> dict[str, Any]:
        """For keeping."""
        return {
            "environment": self.environment,
            "facts_missing": self.facts,
            "calls": {
                "enqueued": self.calls.enqueued,
                "milliseconds": [round(seconds * 1000, 1) for seconds in self.calls.seconds],
                "last_to_first": round(self.calls.last_to_first, 2),
                "slowest_to_first": round(self.calls.slowest_to_first, 2),
            },
            "live": {
                "backlog_rows": self.backlog,
                "backlog_rows_left_at_the_end": self.left,
                "alone": {name: delays.as_json() for name, delays in self.alone.items()},
                "behind_the_backlog": {name: delays.as_json() for name, delays in self.behind.items()},
            },
            "small_org": {
                "rows": _SMALL_BACKLOG,
                "alone_seconds": round(self.small_alone_seconds, 3),
                "behind_the_backlog_seconds": round(self.small_behind_seconds, 3),
            },
        }


async def measure_backfill(server: str, scale: Scale, environment: dict[str, Any], console: Console) -> BackfillFigures:
    """Fills a database whose outbox was lost by calls of the service, then lets live rows come behind a backlog."""
    figures = BackfillFigures(scale, environment)
    async with _platform(server, scale.sessions) as dsn:
        async with running_api(dsn, reporting_api_operation_secs=60) as api:
            console.print(f"backfill: {scale.sessions:,} sessions without a fact and an empty outbox")
            await _fill(api, dsn, scale.call_limit, figures)
            console.print(f"backfill: {figures.facts:,} facts by {len(figures.calls.seconds)} calls")
            async with connected(dsn) as connection:
                big_org = await connection.fetchval(
                    "SELECT org_id FROM fact_session GROUP BY org_id ORDER BY count(*) DESC LIMIT 1"
                )
                for org_id in (_QUIET_ORG, _SMALL_ORG):
                    await add_org(connection, org_id)
            orgs = {"org with the backlog": big_org, "org without": _QUIET_ORG}
            async with running(settings_for(dsn, reporting_projector_workers=_WORKERS), load_registry()):
                figures.alone = await _live(dsn, orgs, scale.live_seconds / 2)
                figures.small_alone_seconds = await _small_backlog(dsn)
            while enqueued := (await _call(api, 100_000, mode="all"))["enqueued"]:
                figures.backlog += enqueued
        async with running(settings_for(dsn, reporting_projector_workers=_WORKERS), load_registry()):
            live, figures.small_behind_seconds = await asyncio.gather(
                _live(dsn, orgs, scale.live_seconds), _small_backlog(dsn)
            )
            figures.behind = live
            async with connected(dsn) as connection:
                figures.left = await connection.fetchval(
                    "SELECT count(*) FROM reporting_outbox WHERE status = 'pending'"
                )
    return figures


@asynccontextmanager
async def _platform(server: str, sessions: int) -> AsyncIterator[str]:
    """A database of the platform with sources alone: no outbox row, no fact."""
    async with connected(server) as admin:
        await admin.execute(f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)")
        await admin.execute(f"CREATE DATABASE {_DATABASE}")
    dsn = database_dsn(server, _DATABASE)
    async with connected(dsn) as connection:
        await connection.execute(SOURCES_SQL.read_text(encoding="utf-8"))
        await migrate(connection, structlog.get_logger())
        await seed_platform(connection, Random(_SEED), _ORGS)
        await write_backlog(connection, sessions)
        await connection.execute("TRUNCATE reporting_outbox")
        await connection.execute("VACUUM (ANALYZE)")
    yield dsn
    async with connected(server) as admin:
        await admin.execute(f"DROP DATABASE {_DATABASE} WITH (FORCE)")


async def _fill(api: RunningApi, dsn: str, limit: int, figures: BackfillFigures) -> None:
    """Calls until nothing is left, and drains between the calls."""
    settings = default_settings(dsn)
    registry = load_registry()
    pool = await open_pool(settings, _WORKERS)
    try:
        while True:
            started = time.perf_counter()
            enqueued = (await _call(api, limit))["enqueued"]
            figures.calls.seconds.append(time.perf_counter() - started)
            figures.calls.enqueued.append(enqueued)
            if not enqueued:
                break
            result = await drain(
                pool, batch_rules(settings, registry), workers=_WORKERS, new_size=lambda: batch_size(settings),
                on_batch=_ignore, log=structlog.get_logger(),
            )  # fmt: skip
            figures.drained_seconds += result.seconds
    finally:
        pool.terminate()
    async with connected(dsn) as connection:
        figures.facts = await connection.fetchval(COUNT_FACTS)


async def _call(api: RunningApi, limit: int, **more: Any) -> dict[str, int]:
    answer = await api.post("/v1/reports/admin/backfill", {"limit": limit} | _BY_ALL | more, by="platform")
    if answer.status != 200:
        raise RuntimeError(f"the backfill was refused: {answer.body!r}")
    body: dict[str, int] = answer.json
    return body


async def _live(dsn: str, orgs: dict[str, int], seconds: float) -> dict[str, Delays]:
    """Writes generations, one a transaction with its outbox row, to each org in turn; tells when facts are seen."""
    delays = {name: Delays() for name in orgs}
    written: dict[str, tuple[str, float]] = {}
    ended = asyncio.Event()
    async with connected(dsn) as writer, connected(dsn) as reader:
        look = asyncio.create_task(_look(reader, written, delays, ended))
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            for name, org_id in orgs.items():
                key = await writer.fetchval(WRITE_LIVE, org_id)
                written[key] = (name, time.perf_counter())
            await asyncio.sleep(_LIVE_EVERY_SECONDS)
        ended.set()
        await look
    return delays


async def _look(
    reader: asyncpg.Connection, written: dict[str, tuple[str, float]], delays: dict[str, Delays], ended: asyncio.Event
) -> None:
    while written or not ended.is_set():
        for record in await reader.fetch(SEEN, list(written)):
            name, committed = written.pop(record["source_key"])
            delays[name].seconds.append(time.perf_counter() - committed)
        await asyncio.sleep(_LOOK_SECONDS)


async def _small_backlog(dsn: str) -> float:
    """Enqueues a small backlog of an org of its own, and tells how long it takes until none of it waits."""
    async with connected(dsn) as connection:
        await connection.execute(WRITE_SMALL_BACKLOG, _SMALL_ORG, _SMALL_BACKLOG)
        started = time.perf_counter()
        waits = True
        while waits:
            await asyncio.sleep(_LOOK_SECONDS)
            waits = await connection.fetchval(WAITS, _SMALL_ORG)
        return time.perf_counter() - started


def _ignore(_: BatchResult, __: float) -> None:
    return


FULL = Scale(13_000, 10_000, 8)
# So small a backlog is gone at once, so its live rows have hardly anything to wait for.
QUICK = Scale(
    400, 2_000, 0.2, most_last_to_first=10, most_live_seconds=10, most_small_seconds=20, must_outlive=False
)  # fmt: skip
