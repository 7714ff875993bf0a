"""Live rows through relay and consumers, beside polling: each on a database of its own, all at work the whole time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from tests.bench.kafka_broker import BenchBroker
from tests.bench.lag import LiveRun, for_bare_transactions, measure_bare, run_live
from tests.bench.live_writers import Load
from tests.bench.parts import Spread, make_platform, own_database
from tests.bench.stage import connected
from tests.processes import Running, started

WAYS = ("polling", "kafka")
_WARM_UP = "warm-up"
_PARTITIONS_ASSIGNED = "partitions assigned"


async def measure_live(
    server: str, loads: tuple[Load, ...], bare_rows: int, broker: BenchBroker, console: Console
) -> tuple[list[LiveRun], Spread]:
    """Lets the same live rows come to each, load by load; gives the runs, and bare transactions spread over them."""
    runs: list[LiveRun] = []
    bare = Spread([])
    durable = Spread([])
    each = bare_rows // len(loads)
    async with (
        own_database(server, "projector_bench_polled") as polled,
        own_database(server, "projector_bench_relayed") as relayed,
    ):
        databases = dict(zip(WAYS, (polled, relayed), strict=True))
        for dsn in databases.values():
            await make_platform(dsn, max(load.orgs for load in loads))
        with TemporaryDirectory(prefix="projector-bench-") as folder:
            async with (
                _polling(polled, Path(folder)),
                _relaying(relayed, Path(folder), broker),
                for_bare_transactions(polled) as unit,
            ):
                for load in loads:
                    for way, dsn in databases.items():
                        async with connected(dsn) as connection:
                            few = Load(load.rate, 0.5, load.writers, load.orgs)
                            await run_live(connection, dsn, _WARM_UP, few)
                            run = await run_live(connection, dsn, way, load)
                        console.print(f"kafka: {run.name}: median {run.lag.median * 1000:.1f} ms")
                        runs.append(run)
                    await measure_bare(unit, each, bare, durable)
    return runs, bare


@asynccontextmanager
async def _polling(dsn: str, folder: Path) -> AsyncIterator[None]:
    async with started("run", folder=folder, **_settings(dsn)) as daemon:
        await daemon.has_logged("projecting")
        yield


@asynccontextmanager
async def _relaying(dsn: str, folder: Path, broker: BenchBroker) -> AsyncIterator[None]:
    """A relay and a daemon that reads what it publishes, with their defaults, from when all consumers have joined."""
    kafka = await broker.new_topic()
    settings = _settings(dsn) | {
        name: str(getattr(kafka, name))
        for name in (
            "reporting_kafka_bootstrap_servers", "reporting_kafka_idempotence", "reporting_kafka_outbox_topic",
            "reporting_kafka_group",
        )
    }  # fmt: skip
    async with (
        started("relay", folder=folder, **settings) as relay,
        started("run", "--feed", "kafka", folder=folder, **settings) as daemon,
    ):
        await relay.has_logged("relaying")
        await daemon.has_logged("projecting")
        workers = int(daemon.logged("projecting")[0]["workers"]) - 1  # one of them sweeps
        await daemon.until(lambda: _assigned(daemon) >= workers, "not all consumers have joined the group")
        yield


def _assigned(daemon: Running) -> int:
    """How many consumers have been given partitions."""
    return len({line["worker"] for line in daemon.logged(_PARTITIONS_ASSIGNED) if line["partitions"]})


def _settings(dsn: str) -> dict[str, str]:
    return {"database_url": dsn, "reporting_http_host": "127.0.0.1", "reporting_http_port": "0"}
