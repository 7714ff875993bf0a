"""`projector status`: the outbox, the datasets and the latest failures, for people or as JSON."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import asyncpg
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from projector.diagnostics import STATUSES, OutboxState, read_freshness, read_outbox
from projector.failed import FailedRow, latest_failed
from projector.kafka.capture import count_waiting, is_capturing
from projector.migrate import applied_version, load_migrations
from projector.registry import Registry

_FAILED_ROWS = 10


@dataclass(frozen=True, slots=True)
class ChangelogState:
    """Changes of facts that are captured and not yet published: how many, up to 10,000; the age of the oldest."""

    waiting: int
    lag_seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that `projector status` shows."""

    schema_version: int
    schema_needed: int
    outbox: OutboxState
    latest_projected_at: dict[str, datetime | None]
    failed: list[FailedRow]
    changelog: ChangelogState | None


async def read_status(connection: asyncpg.Connection, registry: Registry) -> Status | None:
    """Reads the status; None where the database was never migrated."""
    version = await applied_version(connection)
    if version == 0:
        return None
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        fresh = await read_freshness(connection, registry.tables)
        return Status(
            schema_version=version,
            schema_needed=load_migrations()[-1].version,
            outbox=await read_outbox(connection),
            latest_projected_at={table.dataset: fresh.get(table.dataset) for table in registry.tables},
            failed=await latest_failed(connection, limit=_FAILED_ROWS),
            changelog=ChangelogState(*await count_waiting(connection)) if await is_capturing(connection) else None,
        )


def as_json(status: Status) -> dict[str, Any]:
    """The status as plain values; times in ISO 8601, durations in seconds."""
    outbox = status.outbox
    return {
        "generated_at": outbox.at.isoformat(),
        "schema": {"version": status.schema_version, "needed": status.schema_needed},
        "lag_seconds": outbox.lag,
        "outbox": {
            "rows": outbox.rows,
            "estimated": sorted(outbox.estimated),
            "completed_estimated": "completed" in outbox.estimated,
            "by_source_type": outbox.by_source_type,
            "lag_seconds_by_source_type": outbox.lag_seconds,
        },
        "datasets": {
            dataset: {
                "latest_projected_at": at.isoformat() if at else None,
                "freshness_seconds": _age(outbox.at, at),
            }
            for dataset, at in status.latest_projected_at.items()
        },
        "changelog": asdict(status.changelog) if status.changelog else None,
        "latest_failed": [
            {
                "id": str(row.id),
                "org_id": row.org_id,
                "source_type": row.source_type,
                "source_id": row.source_id,
                "attempts": row.attempts,
                "last_error": row.last_error,
                "updated_at": row.updated_at.isoformat(),
                "dead": row.dead,
            }
            for row in status.failed
        ],
    }


def show(status: Status, console: Console, *, publishes: bool) -> None:
    """Writes the status as tables; `publishes`: whether changed facts are published, by the settings here."""
    outbox = status.outbox
    console.print(f"Lag [bold]{_seconds(outbox.lag)}[/bold] (age of the oldest due row)")
    if status.schema_version < status.schema_needed:
        console.print(
            f"[bold red]Schema at version {status.schema_version}, needed {status.schema_needed}:[/bold red] "
            "run `projector migrate`"
        )
    console.print(_outbox_table(outbox))
    console.print(_dataset_table(status))
    if status.changelog:
        state = status.changelog
        console.print(f"Changelog: {state.waiting:,} changes wait, the oldest for {_seconds(state.lag_seconds)}")
        if not publishes:
            console.print(
                "[bold red]REPORTING_CHANGELOG_TOPIC_PREFIX is not set here:[/bold red] if no process publishes, "
                "run `projector changelog disable`"
            )
    if status.failed:
        _show_failed(status.failed, console)


def _outbox_table(outbox: OutboxState) -> RichTable:
    table = RichTable()
    table.add_column("Outbox", no_wrap=True, overflow="fold")
    for name in (*STATUSES, "lag"):
        table.add_column(name, justify="right", no_wrap=True)
    about = {status: "~" if status in outbox.estimated else "" for status in STATUSES}
    for source_type, rows in sorted(outbox.by_source_type.items()):
        lag = outbox.lag_seconds.get(source_type)
        counts = [f"{about[status]}{rows.get(status, 0):,}" if status != "completed" else "" for status in STATUSES]
        table.add_row(escape(source_type), *counts, _seconds(lag) if lag is not None else "")
    totals = [f"{about[status]}{outbox.rows[status]:,}" for status in STATUSES]
    table.add_section()
    table.add_row("all", *totals, _seconds(outbox.lag))
    return table


def _dataset_table(status: Status) -> RichTable:
    table = RichTable("Dataset", "latest fact", "freshness")
    for dataset, at in status.latest_projected_at.items():
        age = _age(status.outbox.at, at)
        written = at.isoformat(timespec="seconds") if at else "none yet"
        table.add_row(dataset, written, _seconds(age) if age is not None else "")
    return table


def _show_failed(failed: list[FailedRow], console: Console) -> None:
    """A line for what each row is and one for its error: no column is so narrow that an id is cut."""
    console.print("[bold]Latest failures[/bold]")
    for row in failed:
        state = "[bold red]dead[/bold red]" if row.dead else "retrying"
        about = f"org {row.org_id}, {escape(row.source_type)}, attempts {row.attempts}, {state}"
        console.print(f"{row.id}  {about}", soft_wrap=True)
        console.print(f"    {escape(row.last_error or '')}", soft_wrap=True)


def _age(now: datetime, at: datetime | None) -> float | None:
    return max((now - at).total_seconds(), 0.0) if at else None


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value < 10 else f"{value:,.0f} s"  # noqa: PLR2004
