"""The operator's commands that work on rows: drain and requeue."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
import structlog

from projector import cli
from projector import drain as drain_module
from tests.obstacles import enqueue_tools, refuse_by_trigger, set_columns, statuses
from tests.platform_rows import add_org, add_session, enqueue, facts, outbox_row
from tests.processes import projector, projector_on_terminal


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


async def dead_letters(connection: asyncpg.Connection, **counts: int) -> list[UUID]:
    """Dead letters of so many rows by source type."""
    org_id = await add_org(connection)
    rows = [await enqueue(connection, name, uuid4(), org_id) for name, count in counts.items() for _ in range(count)]
    await set_columns(connection, rows, status="failed", attempts=10, last_error="22003 out of range")
    await connection.execute("UPDATE reporting_outbox SET next_attempt_at = 'infinity' WHERE id = ANY ($1)", rows)
    return rows


async def test_drain_piped_gives_one_json_line_with_what_it_did(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    good = await enqueue_tools(connection, ["search", "read", "write"])
    good.append(await enqueue(connection, "session", await add_session(connection)))
    bad = [await enqueue(connection, "event", "no uuid"), await enqueue(connection, "weather", uuid4())]
    await enqueue(connection, "event", uuid4())  # its source is gone: completed, no fact
    ran = await projector("drain", folder=tmp_path, database_url=database)
    assert ran.status == 0  # failed rows are not dead yet
    (line,) = ran.out.splitlines()
    told = json.loads(line)
    assert told.pop("seconds") > 0
    assert told == {
        "claimed": 7, "completed": 5, "failed": 2, "dead": 0, "postponed": 0,
        "facts": {"tool_calls": 3, "sessions": 1},
    }  # fmt: skip
    assert await statuses(connection, good + bad) == ["completed"] * 4 + ["failed"] * 2
    assert {json.loads(line)["message"] for line in ran.err.splitlines()} == {"row failed"}


async def test_drain_exits_with_1_where_dead_letters_appeared(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await enqueue_tools(connection, ["search"])
    bad = await enqueue(connection, "event", "no uuid")
    settings = {"database_url": database, "reporting_projector_max_attempts": "1"}
    ran = await projector("drain", folder=tmp_path, **settings)
    assert ran.status == 1
    told = json.loads(ran.out)
    assert (told["completed"], told["failed"], told["dead"]) == (1, 1, 1)
    assert str(bad) in ran.err
    again = await projector("drain", folder=tmp_path, **settings)
    assert (again.status, json.loads(again.out)["claimed"]) == (0, 0)  # old dead letters are no news


async def test_drain_works_through_many_batches(database: str, connection: asyncpg.Connection, tmp_path: Path) -> None:
    rows = await enqueue_tools(connection, [f"tool-{number}" for number in range(60)])
    settings = {"reporting_projector_limit": "2", "reporting_projector_max_limit": "4"}
    ran = await projector("drain", folder=tmp_path, database_url=database, **settings)
    assert (ran.status, json.loads(ran.out)["completed"]) == (0, 60)
    assert set(await statuses(connection, rows)) == {"completed"}
    assert len(await facts(connection, "fact_tool_call")) == 60


async def test_drain_on_a_terminal_shows_rows_rate_and_time_left(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await enqueue_tools(connection, [f"tool-{number}" for number in range(9)])
    await enqueue(connection, "event", "no uuid")
    settings = {"reporting_projector_limit": "1", "reporting_projector_max_limit": "1"}
    ran = await projector_on_terminal("drain", folder=tmp_path, database_url=database, **settings)
    assert ran.status == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ran.out)
    lines = plain.replace("\r", "\n").split("\n")
    lines = [line for line in lines if line]
    bars = [line for line in lines if line.startswith("projecting")]
    assert "0/10" in bars[0]
    assert "10/10" in bars[-1]
    assert "rows/s" in bars[-1]
    assert "0:00:00" in bars[-1]
    assert "row failed" in plain
    assert not any("row failed" in bar or "org_id" in bar for bar in bars)  # the log does not tear the bar
    assert lines[-1].startswith("10 rows in ")
    assert "9 completed, 1 failed, 0 of them dead" in lines[-1]
    assert "{" not in plain


@pytest.fixture
def logging_restored() -> Iterator[None]:
    handlers = list(logging.root.handlers)
    yield
    logging.root.handlers[:] = handlers
    structlog.reset_defaults()


@pytest.mark.usefixtures("logging_restored")
async def test_drain_that_cannot_get_through_says_so_in_plain_words(
    database: str,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (row,) = await enqueue_tools(connection, ["search"])
    refusal = "RAISE EXCEPTION 'canary' USING ERRCODE = '53100'"  # disk full
    await refuse_by_trigger(connection, "fact_tool_call", "true", raising=refusal)
    monkeypatch.setattr(drain_module, "_MOST_FAULTS", 1)
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.chdir(tmp_path)
    assert await asyncio.to_thread(cli.run, ["drain"]) == 3
    await connection.execute("DROP FUNCTION refuse() CASCADE")
    out, err = capsys.readouterr()
    assert out == ""
    assert "projector: the database could not be reached, or refused: 53100 DiskFullError" in err
    assert "canary" not in err
    assert "Traceback" not in err
    assert (await outbox_row(connection, row))["attempts"] == 0


async def test_requeue_by_id(database: str, connection: asyncpg.Connection, tmp_path: Path) -> None:
    first, second = await dead_letters(connection, event=2)
    ran = await projector("requeue", str(first), folder=tmp_path, database_url=database)
    assert (ran.status, ran.out, ran.err) == (0, "1 rows requeued\n", "")
    assert await statuses(connection, [first, second]) == ["pending", "failed"]
    row = await outbox_row(connection, first)
    assert (row["attempts"], row["last_error"]) == (0, None)
    assert await connection.fetchval("SELECT next_attempt_at <= now() FROM reporting_outbox WHERE id = $1", first)


async def test_requeue_by_source_type_and_of_all_dead_letters(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    rows = await dead_letters(connection, event=2, session=1)
    (waiting,) = await enqueue_tools(connection, ["waiting"])
    await set_columns(connection, [waiting], status="failed", attempts=2)
    ran = await projector("requeue", "--source-type", "event", folder=tmp_path, database_url=database)
    assert (ran.status, ran.out) == (0, "2 rows requeued\n")
    assert await statuses(connection, [*rows, waiting]) == ["pending", "pending", "failed", "failed"]
    ran = await projector("requeue", "--all-dead", folder=tmp_path, database_url=database)
    assert (ran.status, ran.out) == (0, "1 rows requeued\n")
    assert await statuses(connection, [*rows, waiting]) == ["pending"] * 3 + ["failed"]
    ran = await projector("requeue", "--source-type", "nonsense", folder=tmp_path, database_url=database)
    assert (ran.status, ran.out) == (0, "0 rows requeued\n")


async def test_a_dry_run_counts_and_changes_nothing(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    rows = await dead_letters(connection, event=2, session=1)
    before = await connection.fetch("SELECT * FROM reporting_outbox ORDER BY id")
    selections = (([str(row) for row in rows[:1]], 1), (["--source-type", "event"], 2), (["--all-dead"], 3))
    runs = [
        projector("requeue", *which, "--dry-run", folder=tmp_path, database_url=database) for which, _ in selections
    ]
    for ran, (_, count) in zip(await asyncio.gather(*runs), selections, strict=True):
        assert (ran.status, ran.out) == (0, f"{count} rows would be requeued\n")
    assert await connection.fetch("SELECT * FROM reporting_outbox ORDER BY id") == before


async def test_ids_that_are_unknown_or_have_not_failed_are_told_and_left_alone(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    (dead,) = await dead_letters(connection, event=1)
    (pending,) = await enqueue_tools(connection, ["search"])
    given = [str(row) for row in (dead, dead, pending, uuid4())]
    dry = await projector("requeue", *given, "--dry-run", folder=tmp_path, database_url=database)
    assert (dry.status, dry.out) == (1, "1 rows would be requeued\n")
    ran = await projector("requeue", *given, folder=tmp_path, database_url=database)
    assert (ran.status, ran.out) == (1, "1 rows requeued\n")
    assert "2 of the ids are unknown or have not failed" in ran.err
    assert await statuses(connection, [dead, pending]) == ["pending", "pending"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "one of the arguments ID --source-type --all-dead is required"),
        (["--dry-run"], "one of the arguments ID --source-type --all-dead is required"),
        (["17"], "invalid UUID value: '17'"),
        (["--all-dead", "--source-type", "event"], "not allowed with"),
        ([str(UUID(int=7)), "--all-dead"], "not allowed with"),
    ],
    ids=["nothing", "a dry run of nothing", "no id", "two selections", "ids and all"],
)
def test_requeue_refuses_what_it_cannot_mean(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.run(["requeue", *arguments])
    assert exited.value.code == 2
    assert said in capsys.readouterr().err


async def test_a_requeue_wakes_the_projectors(database: str, connection: asyncpg.Connection, tmp_path: Path) -> None:
    heard = asyncio.Event()
    await connection.add_listener("reporting_outbox", lambda *_: heard.set())
    await dead_letters(connection, event=1)
    await projector("requeue", "--all-dead", folder=tmp_path, database_url=database)
    await asyncio.wait_for(heard.wait(), 5)
