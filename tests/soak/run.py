"""The run itself: writers, operators, faults and samples side by side, then everything is settled and verified."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import aiohttp
import psutil
from rich.console import Console

from projector.sqlfile import load_sql
from tests.backfills import add_one_of_each
from tests.chaos.servers import ChaosServer
from tests.chaos.service import Service
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Pace, Writers
from tests.obstacles import opened
from tests.soak.faults import FAULTS_OF_THE_DATABASE, PROGRAM_NAMES, Faults
from tests.soak.figures import Figures, Sample
from tests.soak.processes import Programs, process_of, programs

_OUTBOX = load_sql(__file__, "outbox.sql")
_WRITERS = 6
_SETTLE_SECONDS = 180.0
_CALLS = 1000
_EXPECTED = {200, 409, 503}
_LOG_TAIL = 1500


async def soak(figures: Figures, console: Console) -> None:
    """Runs what `figures.plan` asks for; fills `figures` as it goes."""
    with TemporaryDirectory(prefix="soak-") as folder:
        async with (
            ChaosServer(max_wal_size="4GB") as server,
            programs(server.dsn, Path(folder), figures.plan.retention_seconds) as running,
        ):
            await _Soak(figures, console, server, running).run()


@dataclass(slots=True)
class _Soak:
    figures: Figures
    console: Console
    server: ChaosServer
    programs: Programs
    operating: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        plan, began = self.figures.plan, time.monotonic()
        writers = Writers(self.server.dsn, self._random("writers"), Pace(writers=_WRITERS, pause=_WRITERS / plan.rate))
        faults = Faults(
            self.server, self.programs, self._random("faults"), plan.fault_pause, lambda: time.monotonic() - began,
            self.figures.faults, self.figures.complaints,
        )  # fmt: skip
        async with asyncio.TaskGroup() as group:
            group.create_task(writers.run())
            breaking = group.create_task(faults.run())
            operating = group.create_task(self._operate())
            await self._watch(writers, lambda: time.monotonic() - began)
            breaking.cancel()
            writers.stop.set()
            self.operating.set()
            await operating
        await self._conclude()

    def _random(self, purpose: str) -> Random:
        return Random(f"{self.figures.plan.seed} {purpose}")

    async def _watch(self, writers: Writers, clock: Callable[[], float]) -> None:
        """Samples until the time is up. While the server is down there is nothing to sample."""
        while clock() < self.figures.plan.seconds:
            await asyncio.sleep(self.figures.plan.sample_pause)
            for running in (self.programs.lasting, self.programs.service.running):
                if running.process.returncode is not None:
                    raise RuntimeError(f"a program has ended by itself\n{running.text()[-_LOG_TAIL:]}")
            with contextlib.suppress(*FAULTS_OF_THE_DATABASE):
                async with asyncio.timeout(10):
                    sample = await self._sample(writers, clock)
                self.figures.samples.append(sample)
                self.console.print(_line(sample, len(self.figures.faults)), highlight=False)

    async def _sample(self, writers: Writers, clock: Callable[[], float]) -> Sample:
        async with opened(self.server.dsn) as connection:
            (outbox,) = await connection.fetch(_OUTBOX, PROGRAM_NAMES)
        (daemon_rss, daemon_fds), (api_rss, api_fds) = (
            _memory_and_files(process_of(running)) for running in (self.programs.lasting, self.programs.service.running)
        )
        return Sample(
            seconds=clock(), daemon_rss_bytes=daemon_rss, daemon_fds=daemon_fds, api_rss_bytes=api_rss,
            api_fds=api_fds, connections=outbox["connections"], lag_seconds=outbox["lag_seconds"],
            waiting=outbox["waiting"], outbox_rows=outbox["rows"], outbox_bytes=outbox["bytes"],
            written=writers.committed, completed=await self.programs.completed(),
        )  # fmt: skip

    async def _operate(self) -> None:
        """Sources that nobody enqueues, and operators who backfill them and look at how things are."""
        while not self.operating.is_set():
            with contextlib.suppress(*FAULTS_OF_THE_DATABASE):
                async with opened(self.server.dsn) as connection, connection.transaction():
                    await add_one_of_each(connection)
            await self._backfill()
            await self._call("GET", "/v1/reports/admin/diagnostics?org_id=*")
            await self._call("GET", "/v1/reports/admin/outbox?status=failed&org_id=*")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.operating.wait(), self.figures.plan.sample_pause / 2)

    async def _backfill(self) -> int:
        """Calls once; gives the rows enqueued, or -1 where that is not known."""
        status, text = await self._call("POST", "/v1/reports/admin/backfill", {"org_id": "*", "mode": "stale"})
        return int(json.loads(text)["enqueued"]) if status == 200 else -1

    async def _call(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        service: Service = self.programs.service
        try:
            status, text = await service.ask(method, path, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            self._complain(f"the service did not answer {path}: {type(error).__name__}")
            return 0, ""
        self.figures.answers[status] = self.figures.answers.get(status, 0) + 1
        if status not in _EXPECTED:
            self._complain(f"the service answered {path} with {status}: {text}")
        return status, text

    async def _conclude(self) -> None:
        """Backfills to the end, lets all settle, stops the programs and compares everything with the truth."""
        self.console.print("soak: the load has ended; everything settles and is verified")
        for _ in range(_CALLS):
            if await self._backfill() == 0:
                break
            await asyncio.sleep(0.05)
        try:
            await settled(self.server.dsn, _SETTLE_SECONDS)
            if any(statuses := await self.programs.stop()):
                self._complain(f"the programs ended with statuses {statuses}")
            await verify(self.server.dsn)
        except AssertionError as error:
            self._complain(str(error))

    def _complain(self, text: str) -> None:
        self.figures.complaints.append(text)
        self.console.print(f"soak: {text}", style="red", markup=False)


def _memory_and_files(process: psutil.Process) -> tuple[int, int]:
    with process.oneshot():
        return process.memory_info().rss, process.num_fds()


def _line(sample: Sample, faults: int) -> str:
    megabytes = f"{sample.daemon_rss_bytes / 2**20:.1f}+{sample.api_rss_bytes / 2**20:.1f} MB"
    return (
        f"{sample.seconds:7.1f} s  faults {faults}  completed {sample.completed:,}  lag {sample.lag_seconds:.3f} s  "
        f"waiting {sample.waiting:,}  outbox {sample.outbox_rows:,} rows {sample.outbox_bytes / 2**20:.1f} MB  "
        f"{megabytes}  fds {sample.daemon_fds}+{sample.api_fds}  connections {sample.connections}"
    )
