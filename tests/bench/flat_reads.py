"""What it costs to look at an outbox: the gauges, and the diagnostics over HTTP."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry

from projector.database import Timeouts, open_pool
from projector.metrics import Metrics
from projector.projections import load_registry
from projector.sampler import Sampler
from tests.api import running_api
from tests.bench.stage import connected
from tests.daemons import captured_log, settings_for

SAMPLE = "one sample of the gauges"

_READS = 15
_INTERVAL_SECONDS = 5.0
_TIMEOUT_SECONDS = 60.0


async def time_reads(dsn: str) -> tuple[dict[str, list[float]], int]:
    """Times samples of the gauges, and diagnostics of all orgs and of the first one.

    Returns:
        Milliseconds of each read, by what was read; and how many rows the gauges said to be pending.
    """
    samples, pending = await _time_samples(dsn)
    times = {SAMPLE: samples}
    async with connected(dsn) as connection:
        org = await connection.fetchval("SELECT public_id FROM organizations ORDER BY org_id LIMIT 1")
    async with running_api(dsn, reporting_sample_interval_secs=3600) as api:
        for name, org_id in (("diagnostics of all orgs", "*"), ("diagnostics of an org", org)):

            async def ask(org_id: str = org_id) -> None:
                answer = await api.get(f"/v1/reports/admin/diagnostics?org_id={org_id}", by="platform")
                if answer.status != 200:
                    raise RuntimeError(f"diagnostics were refused: {answer.body!r}")

            times[name] = await _times(ask)
    return times, pending


async def _time_samples(dsn: str) -> tuple[list[float], int]:
    registry = load_registry()
    log, _ = captured_log()
    pool = await open_pool(settings_for(dsn), 1)
    try:
        metrics = Metrics(registry, CollectorRegistry())
        sampler = Sampler(pool, registry, metrics, Timeouts(_TIMEOUT_SECONDS), _INTERVAL_SECONDS, asyncio.Event(), log)
        times = await _times(sampler.sample)
        return times, (await sampler.sample()).rows["pending"]
    finally:
        pool.terminate()


async def _times(read: Callable[[], Awaitable[object]]) -> list[float]:
    """Milliseconds of several reads, after one that is not timed."""
    await read()
    spent = []
    for _ in range(_READS):
        started = time.perf_counter()
        await read()
        spent.append((time.perf_counter() - started) * 1000)
    return spent
