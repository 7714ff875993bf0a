"""The operator's commands, run as an operator runs them: migrate and status, and what every command refuses."""

import asyncio
import json
import re
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from projector.migrate import NOTIFY_TRIGGER, load_migrations
from tests.conftest import SOURCES_SQL, run_on
from tests.obstacles import enqueue_tools, opened, set_columns
from tests.platform_rows import enqueue
from tests.processes import projector
from tests.roles import OWNER, grant

SECRET = "pa55-w0rd"
NOTHING_LISTENS = f"postgresql://reporter:{SECRET}@127.0.0.1:1/platform"
HOUR = 3600
COMMANDS = (("migrate",), ("drain",), ("status",), ("requeue", "--all-dead"))


async def due_in(connection: asyncpg.Connection, row: UUID, seconds: float) -> None:
    """Makes an outbox row due so many seconds from now."""
    await connection.execute(
        "UPDATE reporting_outbox SET next_attempt_at = now() + $2 * interval '1 s' WHERE id = $1", row, seconds
    )


async def has_trigger(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM pg_trigger WHERE tgname = $1", NOTIFY_TRIGGER))


async def test_migrate_brings_a_database_up_to_date_and_may_be_run_again(empty_database: str, tmp_path: Path) -> None:
    await run_on(empty_database, SOURCES_SQL.read_text(encoding="utf-8"))
    await grant(empty_database)
    for applied in (len(load_migrations()), 0):
        ran = await projector("migrate", folder=tmp_path, database_url=empty_database)
        assert (ran.status, ran.out) == (0, "")
        last = json.loads(ran.err.splitlines()[-1])
        assert (last["message"], last["applied"]) == ("database is up to date", applied)
    await grant(empty_database)
    status = await projector("status", "--json", folder=tmp_path, database_url=empty_database)
    shown = json.loads(status.out)
    assert shown["schema"] == {"version": load_migrations()[-1].version, "needed": load_migrations()[-1].version}


async def test_migrate_installs_and_removes_the_trigger_that_wakes(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    for arguments, there in (
        (("migrate", "--notify-trigger", "on"), True),
        (("migrate", "--notify-trigger", "off"), False),
    ):
        assert (await projector(*arguments, folder=tmp_path, database_url=database)).status == 0
        assert await has_trigger(connection) == there


async def test_migrate_says_when_it_is_pointed_at_another_database(empty_database: str, tmp_path: Path) -> None:
    ran = await projector("migrate", folder=tmp_path, database_url=empty_database)
    assert ran.status == 1
    assert "table organizations is not there" in ran.err
    assert "Check DATABASE_URL" in ran.err
    assert "Traceback" not in ran.err


async def test_before_migrate_every_command_says_what_to_do(empty_database: str, tmp_path: Path) -> None:
    await run_on(empty_database, SOURCES_SQL.read_text(encoding="utf-8"))
    runs = [projector(*command, folder=tmp_path, database_url=empty_database) for command in COMMANDS[1:]]
    for ran in await asyncio.gather(*runs):
        assert (ran.status, ran.out) == (3, "")
        assert ran.err == "projector: the reporting tables are not there: run `projector migrate` first\n"


async def test_status_shows_lag_counts_freshness_and_failures(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    done, waiting, failed, dead = await enqueue_tools(connection, ["done", "waiting", "failed", "dead"])
    await set_columns(connection, [failed, dead], status="failed", attempts=3, last_error="[/odd] 22003")
    await connection.execute("UPDATE reporting_outbox SET next_attempt_at = 'infinity' WHERE id = $1", dead)
    await due_in(connection, failed, HOUR)
    await due_in(connection, waiting, HOUR)
    odd = await enqueue(connection, "[/odd]", uuid4())
    assert (await projector("drain", folder=tmp_path, database_url=database)).status == 0
    await due_in(connection, waiting, -90)

    ran = await projector("status", folder=tmp_path, database_url=database)
    assert (ran.status, ran.err) == (0, "")
    (lag,) = re.findall(r"Lag (\d+) s", ran.out)
    assert 90 <= int(lag) < 120
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in ran.out.splitlines()]
    rows = {line[0]: line[1:] for line in cells if line}
    assert rows["event"][:4] == ["1", "0", "1", "1"]
    assert rows["[/odd]"][:4] == ["0", "0", "1", "0"]
    assert rows["all"][:5] == ["1", "0", "2", "1", "1"]
    assert rows["turns"][0] == "none yet"
    assert re.fullmatch(r"\d+\.\d+ s", rows["tool_calls"][1])
    assert f"{dead}  org 1, event, attempts 3, dead\n    [/odd] 22003\n" in ran.out
    assert f"{failed}  org 1, event, attempts 3, retrying\n" in ran.out
    assert str(odd) in ran.out
    assert str(done) not in ran.out


async def test_status_as_json_is_one_document_for_programs(
    database: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    done, waiting = await enqueue_tools(connection, ["done", "waiting"])
    await due_in(connection, waiting, HOUR)
    bad = await enqueue(connection, "event", "no uuid")
    await projector("drain", folder=tmp_path, database_url=database, reporting_projector_max_attempts="1")
    await due_in(connection, waiting, -90)

    ran = await projector("status", "--json", folder=tmp_path, database_url=database)
    assert (ran.status, ran.err) == (0, "")
    shown = json.loads(ran.out)
    assert shown["outbox"]["rows"] == {"pending": 1, "processing": 0, "failed": 0, "dead": 1, "completed": 1}
    assert shown["outbox"]["by_source_type"] == {"event": {"pending": 1, "dead": 1}}
    assert shown["lag_seconds"] == shown["outbox"]["lag_seconds_by_source_type"]["event"] == pytest.approx(91, abs=3)
    assert set(shown["datasets"]) == {
        "llm_generations", "tool_calls", "turns", "sessions", "budget_postings", "capability_usage",
    }  # fmt: skip
    assert shown["datasets"]["turns"] == {"latest_projected_at": None, "freshness_seconds": None}
    assert 0 <= shown["datasets"]["tool_calls"]["freshness_seconds"] < 30
    (failure,) = shown["latest_failed"]
    assert (failure["id"], failure["attempts"], failure["dead"]) == (str(bad), 1, True)
    assert failure["last_error"] == "malformed source id: not a UUID"
    assert str(done) not in ran.out


async def test_an_unreachable_database_is_told_without_secrets(tmp_path: Path) -> None:
    runs = [projector(*command, folder=tmp_path, database_url=NOTHING_LISTENS) for command in COMMANDS[:3]]
    for ran in await asyncio.gather(*runs):
        assert (ran.status, ran.out) == (3, "")
        assert ran.err.startswith("projector: the database could not be reached, or refused: ConnectionRefusedError.")
        assert "Check DATABASE_URL" in ran.err
        assert SECRET not in ran.err


async def test_a_database_that_is_not_there_is_told(server: str, tmp_path: Path) -> None:
    missing = server.rpartition("/")[0] + "/nowhere"
    ran = await projector("status", folder=tmp_path, database_url=missing)
    assert ran.status == 3
    assert "3D000 InvalidCatalogNameError" in ran.err


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"database_url": NOTHING_LISTENS, "reporting_projector_limit": "0"}, "REPORTING_PROJECTOR_LIMIT='0': must be"),
        ({}, "DATABASE_URL is not set"),
        ({"database_url": f"postgresql://reporter:{SECRET}/x@h/d"}, "DATABASE_URL (not shown here) has a port"),
    ],
    ids=["a bad value", "no database", "a bad database"],
)
async def test_wrong_settings_are_refused_before_anything_is_done(
    variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    ran = await projector("run", folder=tmp_path, **variables)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"projector: {said}")
    assert SECRET not in ran.err


async def test_settings_are_read_from_dot_env(database: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"DATABASE_URL={database}\n")
    assert (await projector("status", folder=tmp_path)).status == 0


async def test_help_names_all_commands(tmp_path: Path) -> None:
    ran, unknown, none = await asyncio.gather(
        projector("--help", folder=tmp_path), projector("explode", folder=tmp_path), projector(folder=tmp_path)
    )
    assert (ran.status, unknown.status, none.status) == (0, 2, 2)
    for command in ("migrate", "run", "drain", "status", "requeue", "demo"):
        assert re.search(rf"^ +{command}  ", ran.out, re.MULTILINE)
    assert "explode" in unknown.err


async def test_the_password_is_in_no_output_of_a_successful_command(database: str, tmp_path: Path) -> None:
    if urlsplit(database).password:
        pytest.skip("the server of this run asks for its own password")
    url = database.replace(f"//{OWNER}@", f"//{OWNER}:{SECRET}@")  # the server trusts us with any
    assert SECRET in url
    runs = [
        projector(name, folder=tmp_path, database_url=url, reporting_log_level="debug") for name in ("drain", "status")
    ]
    for ran in await asyncio.gather(*runs):
        assert ran.status == 0
        assert SECRET not in ran.out + ran.err


async def test_a_schema_that_is_behind_is_told(database: str, tmp_path: Path) -> None:
    async with opened(database) as connection:
        await connection.execute("DELETE FROM reporting_projector_migrations WHERE version > 1")
    ran = await projector("status", folder=tmp_path, database_url=database)
    assert ran.status == 0
    assert "run `projector migrate`" in ran.out
