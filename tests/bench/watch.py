"""Samples of a long run: what is on the disk, what has been projected, and what it cost."""

import asyncio
import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import asyncpg
import psutil

from projector.database import APPLICATION_NAME
from projector.sqlfile import load_sql
from tests.bench.load import Projecting, Writer

_OUTBOX_STATE = load_sql(__file__, "outbox_state.sql")
_COUNT_COMPLETED = load_sql(__file__, "count_completed.sql")
_CLAIMS = load_sql(__file__, "claims.sql")
_BACKENDS = load_sql(__file__, "backends.sql")
_ENOUGH_SAMPLES = 20
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. What is counted is counted since the run began.

    Attributes:
        seconds: since the run began.
        written, projected, otherwise: outbox rows that were written, completed, and that failed or were put off.
        lag_seconds: the daemon's own gauge, sampled every few seconds.
        late_seconds: how late the writer was at the most since the last sample.
        heap_bytes, indexes: the outbox on the disk; bytes by index.
        live, dead, autovacuums: the server's statistics of the outbox.
        completed: completed rows in the outbox; None where they are not counted.
        batches, batch_seconds: of the daemon.
        claims, claim_ms, claimed: claim statements, the server's time for them, the rows that they gave.
        rss_bytes, daemon_cpu_seconds, backend_cpu_seconds: the daemon's process, and its server processes together.
    """

    seconds: float
    written: int
    projected: int
    otherwise: int
    lag_seconds: float
    late_seconds: float
    heap_bytes: int
    indexes: dict[str, int]
    live: int
    dead: int
    autovacuums: int
    completed: int | None
    batches: int
    batch_seconds: float
    claims: int
    claim_ms: float
    claimed: int
    rss_bytes: int
    daemon_cpu_seconds: float
    backend_cpu_seconds: float

    @property
    def waiting(self) -> int:
        """Rows written and not yet projected; the daemon may have counted one that the writer has not."""
        return max(self.written - self.projected, 0)

    @property
    def index_bytes(self) -> int:
        """All indexes together."""
        return sum(self.indexes.values())

    def as_json(self) -> dict[str, Any]:
        """For keeping."""
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Window:
    """What went on between two samples."""

    first: Sample
    last: Sample

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.last.seconds - self.first.seconds

    @property
    def projected_per_second(self) -> float:
        """Rows."""
        return (self.last.projected - self.first.projected) / self.seconds

    @property
    def written_per_second(self) -> float:
        """Rows."""
        return (self.last.written - self.first.written) / self.seconds

    @property
    def claim_ms(self) -> float:
        """The server's milliseconds for a claim, whether it found rows or not."""
        return (self.last.claim_ms - self.first.claim_ms) / max(self.last.claims - self.first.claims, 1)

    @property
    def batch_ms(self) -> float:
        """The daemon's milliseconds for a batch with rows, claim to commit."""
        batches = max(self.last.batches - self.first.batches, 1)
        return (self.last.batch_seconds - self.first.batch_seconds) * 1000 / batches

    @property
    def backend_cpu_us_per_row(self) -> float:
        """Microseconds of CPU that the daemon's server processes spent for each projected row."""
        rows = max(self.last.projected - self.first.projected, 1)
        return (self.last.backend_cpu_seconds - self.first.backend_cpu_seconds) * 1e6 / rows

    def as_json(self) -> dict[str, float]:
        """For keeping."""
        return {
            "from_seconds": round(self.first.seconds, 1),
            "to_seconds": round(self.last.seconds, 1),
            "written_per_second": round(self.written_per_second, 1),
            "projected_per_second": round(self.projected_per_second, 1),
            "claims": self.last.claims - self.first.claims,
            "claim_ms": round(self.claim_ms, 3),
            "rows_per_claim": round(
                (self.last.claimed - self.first.claimed) / max(self.last.claims - self.first.claims, 1), 2
            ),
            "batch_ms": round(self.batch_ms, 3),
            "backend_cpu_us_per_row": round(self.backend_cpu_us_per_row, 1),
        }


@dataclass(slots=True)
class Watch:
    """Takes samples of one run.

    Attributes:
        connection: to the run's database, used for nothing else meanwhile.
        writer, projecting: who writes, and who projects.
        samples: where they are put; a run that is interrupted keeps what is there.
        counts_completed: whether completed rows are counted, which reads the whole outbox.
    """

    connection: asyncpg.Connection
    writer: Writer
    projecting: Projecting
    samples: list[Sample]
    counts_completed: bool
    _started: float = field(default_factory=time.monotonic)
    _backend_seconds: dict[int, float] = field(default_factory=dict)

    async def over(self, seconds: float) -> list[Sample]:
        """Takes samples for so long, every few seconds; gives them, the first and the last at the very ends."""
        deadline = time.monotonic() + seconds
        pause = min(seconds / _ENOUGH_SAMPLES, _LONGEST_PAUSE)
        taken = [await self.sample()]
        while (left := deadline - time.monotonic()) > 0:
            await asyncio.sleep(min(pause, left))
            taken.append(await self.sample())
        return taken

    async def sample(self) -> Sample:
        """Takes one sample."""
        written = self.writer.written
        counted = await self.projecting.counted()
        state = await self.connection.fetchrow(_OUTBOX_STATE)
        claims = await self.connection.fetchrow(_CLAIMS)
        completed = await self.connection.fetchval(_COUNT_COMPLETED) if self.counts_completed else None
        assert state is not None
        assert claims is not None
        with (process := self.projecting.process).oneshot():
            rss, cpu = process.memory_info().rss, _cpu_seconds(process)
        sample = Sample(
            seconds=time.monotonic() - self._started,
            written=written,
            projected=counted.completed,
            otherwise=counted.otherwise,
            lag_seconds=counted.lag_seconds,
            late_seconds=self.writer.take_late(),
            heap_bytes=state["heap_bytes"],
            indexes=json.loads(state["indexes"]),
            live=state["live"],
            dead=state["dead"],
            autovacuums=state["autovacuums"],
            completed=completed,
            batches=counted.batches,
            batch_seconds=counted.batch_seconds,
            claims=claims["claims"],
            claim_ms=claims["claim_ms"],
            claimed=claims["claimed"],
            rss_bytes=rss,
            daemon_cpu_seconds=cpu,
            backend_cpu_seconds=await self._backend_cpu_seconds(),
        )
        self.samples.append(sample)
        return sample

    async def _backend_cpu_seconds(self) -> float:
        """Of all server processes that the daemon has had; one that is gone counts with what was last seen of it."""
        for record in await self.connection.fetch(_BACKENDS, APPLICATION_NAME):
            try:
                self._backend_seconds[record["pid"]] = _cpu_seconds(psutil.Process(record["pid"]))
            except psutil.NoSuchProcess:
                continue
        return sum(self._backend_seconds.values())


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
