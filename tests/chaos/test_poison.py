"""Bad rows in a backlog, one, half, or all of them: they end as dead letters, tell nothing, and can be requeued."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import aiohttp
import asyncpg
import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.poison import (
    CANARY,
    OUTBOX_CANARY,
    add_backlog,
    add_hopeless,
    bad_rows,
    cure,
    raise_in_projection,
    refuse,
)
from tests.chaos.service import Service, serving
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.obstacles import opened, wait_until
from tests.processes import Running, projector

_ATTEMPTS = 3
_PASS_BACKOFF = """
    UPDATE reporting_outbox SET next_attempt_at = now()
    WHERE status = 'failed' AND next_attempt_at > now() AND next_attempt_at < 'infinity'
"""
_UNSETTLED = """
    SELECT count(*) FROM reporting_outbox
    WHERE status <> 'completed' AND NOT (status = 'failed' AND next_attempt_at = 'infinity')
"""
_DEAD = "SELECT id, attempts, last_error FROM reporting_outbox WHERE next_attempt_at = 'infinity'"


@pytest.mark.parametrize(
    "every",
    [pytest.param(100, marks=pytest.mark.full_only), 2, pytest.param(1, marks=pytest.mark.full_only)],
    ids=["1 %", "50 %", "100 %"],
)
async def test_bad_rows_end_as_dead_letters_that_tell_nothing_and_can_be_requeued(
    chaos: Chaos, database: str, tmp_path: Path, every: int
) -> None:
    settings = {"reporting_projector_max_attempts": str(_ATTEMPTS)}
    async with (
        opened(database) as connection,
        Fleet(database, tmp_path, reporting_log_level="debug", **settings) as fleet,
        serving(tmp_path, database, reporting_log_level="debug", **settings) as service,
    ):
        await add_backlog(connection, chaos.times(1000, 40), every)
        hopeless = await add_hopeless(connection, chaos.times(14, 7))
        await refuse(connection)
        await raise_in_projection(connection)
        bad = await bad_rows(connection)
        await fleet.start(2)
        await _until_settled(connection)
        await _assert_dead(connection, bad | set(hopeless))
        await _assert_listed(service, database, tmp_path, bad | set(hopeless))
        told = await _all_that_is_told(service, fleet.all)

        await cure(connection)
        status, text = await service.ask(
            "POST", "/v1/reports/admin/outbox/requeue", {"org_id": "*", "all_dead": True, "limit": 100_000}
        )
        assert (status, json.loads(text)["requeued"]) == (200, len(bad) + len(hopeless))
        await _until_settled(connection)
        await settled(database)
        assert await fleet.stop_all() == [0, 0]
        await verify(database, hopeless)
        told += await _all_that_is_told(service, [])
    _assert_no_canary([*told, *(daemon.text() for daemon in fleet.all), service.running.text()], OUTBOX_CANARY)


async def _until_settled(connection: asyncpg.Connection) -> None:
    """Lets each backoff pass at once, until every row is completed or dead."""

    async def is_settled() -> bool:
        await connection.execute(_PASS_BACKOFF)
        return bool(await connection.fetchval(_UNSETTLED) == 0)

    await wait_until(is_settled, 60)


async def _assert_dead(connection: asyncpg.Connection, expected: set[UUID]) -> None:
    """Exactly these are dead letters, after the set attempts, with an error that tells nothing of any source."""
    dead = await connection.fetch(_DEAD)
    assert {record["id"] for record in dead} == expected
    assert {record["attempts"] for record in dead} == {_ATTEMPTS}
    assert all(record["last_error"] for record in dead)
    _assert_no_canary([record["last_error"] for record in dead], OUTBOX_CANARY)


async def _assert_listed(service: Service, dsn: str, folder: Path, expected: set[UUID]) -> None:
    """The service lists all of them, page by page; `projector status` counts them and shows the latest."""
    listed: list[dict[str, Any]] = []
    path = first = "/v1/reports/admin/outbox?status=dead&org_id=*&limit=100"
    while path:
        status, text = await service.ask("GET", path)
        assert status == 200, text
        _assert_no_canary([text])
        page = json.loads(text)
        listed += page["rows"]
        path = f"{first}&cursor={quote(page['next_cursor'])}" if page.get("next_cursor") else ""
    assert {UUID(row["id"]) for row in listed} == expected
    assert len(listed) == len(expected)
    ran = await projector("status", "--json", folder=folder, database_url=dsn)
    shown = json.loads(ran.out)
    assert shown["outbox"]["rows"]["dead"] == len(expected)
    assert {UUID(row["id"]) for row in shown["latest_failed"]} <= expected
    _assert_no_canary([ran.out, ran.err])


async def _all_that_is_told(service: Service, daemons: list[Running]) -> list[str]:
    """Metrics and probes of all processes, and the answers of the service that are not the outbox's own columns."""
    told = []
    for method, path, body in (
        ("GET", "/metrics", None), ("GET", "/readyz", None), ("GET", "/v1/reports/admin/actions?org_id=*", None),
        ("GET", "/v1/reports/admin/outbox?status=dead&org_id=*&cursor=no-cursor", None),
        ("POST", "/v1/reports/admin/outbox/requeue", {"org_id": "*", "ids": ["no id"]}),
        ("POST", "/v1/reports/admin/backfill", {"org_id": "*", "mode": "stale", "dry_run": True}),
        ("POST", "/v1/reports/projector/run?limit=5&org_id=*", None),
    ):  # fmt: skip
        told.append((await service.ask(method, path, body))[1])
    diagnostics = await service.ask("GET", "/v1/reports/admin/diagnostics?org_id=*")
    assert diagnostics[0] == 200
    _assert_no_canary([diagnostics[1]])
    async with aiohttp.ClientSession() as session:
        for daemon in daemons:
            port = next(line["port"] for line in map(json.loads, daemon.text().splitlines()) if "port" in line)
            for path in ("metrics", "readyz", "livez"):
                async with session.get(f"http://127.0.0.1:{port}/{path}") as answer:
                    told.append(await answer.text())
    return told


def _assert_no_canary(texts: list[str], *more: str) -> None:
    for text in texts:
        for canary in (CANARY, *more):
            place = text.find(canary)
            assert place < 0, f"{canary} stands in: {text[max(place - 300, 0) : place + 100]}"
