"""What a daemon costs while nothing is due: statements, transactions and processor time."""

from dataclasses import dataclass, field
from typing import Any

import asyncpg
import psutil

from projector.sqlfile import load_sql

IDLE_CALLS = load_sql(__file__, "idle_calls.sql")
IDLE_ACTIVITY = load_sql(__file__, "idle_activity.sql")


@dataclass(frozen=True, slots=True)
class Idle:
    """What was used from one moment to another.

    Attributes:
        quiet_seconds: how long there had been no row when it began.
        seconds: how long it lasted.
        workers: of the daemon.
        calls: statements by their text, each SET of a batch's beginning too; None where pg_stat_statements is missing.
        transactions: committed or rolled back.
        daemon_seconds: processor time of the daemon's process.
        backend_seconds: that of the server's processes that serve it; None where the server is not on this machine.
    """

    quiet_seconds: float
    seconds: float
    workers: int
    calls: dict[str, int] | None
    transactions: int
    daemon_seconds: float
    backend_seconds: float | None

    @property
    def statements_per_worker(self) -> float | None:
        """Statements a second, of the workers and all that runs beside them, for each worker."""
        return None if self.calls is None else sum(self.calls.values()) / self.seconds / self.workers

    @property
    def daemon_core(self) -> float:
        """The share of a core that the daemon's process used."""
        return self.daemon_seconds / self.seconds

    def as_json(self) -> dict[str, Any]:
        """For keeping."""
        return {
            "quiet_seconds_before": round(self.quiet_seconds, 1),
            "seconds": round(self.seconds, 2),
            "workers": self.workers,
            "statements": self.calls,
            "transactions": self.transactions,
            "daemon_cpu_seconds": round(self.daemon_seconds, 3),
            "backend_cpu_seconds": None if self.backend_seconds is None else round(self.backend_seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class Count:
    """The counters of one moment."""

    calls: dict[str, int] | None
    transactions: int
    daemon: float
    backends: dict[int, float] = field(default_factory=dict)


async def count(observer: asyncpg.Connection, database: str, process_id: int) -> Count:
    """Reads the counters of a daemon that alone uses a database.

    Args:
        observer: connected to another database.
        database: the daemon's.
        process_id: the daemon's.
    """
    (activity,) = await observer.fetch(IDLE_ACTIVITY, database)
    backends = {pid: seconds for pid in activity["pids"] if (seconds := _backend_seconds(pid)) is not None}
    return Count(
        await _calls(observer, database), activity["transactions"], _seconds(psutil.Process(process_id)), backends
    )


def difference(before: Count, after: Count, *, quiet: float, seconds: float, workers: int) -> Idle:
    """What was used between two counts that are `seconds` apart. Connections must have stayed the same."""
    calls = None
    if before.calls is not None and after.calls is not None:
        more = {text: calls - before.calls.get(text, 0) for text, calls in after.calls.items()}
        calls = {text: calls for text, calls in more.items() if calls}
    backends = [seconds - before.backends.get(pid, 0.0) for pid, seconds in after.backends.items()]
    return Idle(
        quiet, seconds, workers, calls, after.transactions - before.transactions, after.daemon - before.daemon,
        sum(backends) if backends else None,
    )  # fmt: skip


async def _calls(observer: asyncpg.Connection, database: str) -> dict[str, int] | None:
    try:
        return {record["text"]: record["calls"] for record in await observer.fetch(IDLE_CALLS, database)}
    except (asyncpg.UndefinedTableError, asyncpg.ObjectNotInPrerequisiteStateError):
        return None


def _backend_seconds(process_id: int) -> float | None:
    """Processor time of a server's process; None where the number is not one of a PostgreSQL on this machine."""
    try:
        process = psutil.Process(process_id)
        return _seconds(process) if "postgres" in process.name() else None
    except psutil.Error:
        return None


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
