"""Counts of the outbox: exact up to a bound, beyond it estimates that never cost a count of all (design: promise 8)."""

from datetime import timedelta

import asyncpg
import pytest

from projector import diagnostics
from projector.diagnostics import read_outbox, read_outbox_of_org
from tests.api import running_api
from tests.platform_rows import add_org

BOUND = 200
PAGES = 40
CLOSE = 0.15
"""How far an estimate may be from the truth, as a share of it: the rows of half a gap between two sampled pages."""

# Wide rows, so that a few thousand fill many times the pages that are sampled.
_ADD = """
INSERT INTO reporting_outbox (
    org_id, source_type, source_id, reason, status, next_attempt_at, claimed_at, created_at, last_error
)
SELECT
    $1, $2, gen_random_uuid()::text, 'test', $3,
    CASE WHEN $5 THEN 'infinity' ELSE now() - $6::interval + number * interval '1 microsecond' END,
    CASE $3 WHEN 'processing' THEN now() END, now() - $6::interval, repeat('x', 600)
FROM generate_series(1, $4::integer) AS number
"""


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "_MOST_COUNTED", BOUND)
    monkeypatch.setattr(diagnostics, "_SAMPLED_PAGES", PAGES)


@pytest.fixture
async def outbox(connection: asyncpg.Connection) -> asyncpg.Connection:
    """A connection to a database with two orgs."""
    for org_id in (1, 2):
        await add_org(connection, org_id)
    return connection


async def add(
    connection: asyncpg.Connection, rows: int, source_type: str = "event", status: str = "pending", *, org_id: int = 1,
    minutes: float = 1, dead: bool = False,
) -> None:  # fmt: skip
    """Rows that became due, and were written, so many minutes ago."""
    await connection.execute(_ADD, org_id, source_type, status, rows, dead, timedelta(minutes=minutes))


async def test_counts_are_exact_up_to_the_bound_itself(outbox: asyncpg.Connection) -> None:
    await add(outbox, BOUND - 50, "event")
    await add(outbox, 30, "session", "failed")
    await add(outbox, 20, "llm_generation")
    await add(outbox, BOUND - 30, "event", "failed", dead=True)
    await add(outbox, BOUND, "session", "processing")
    state = await read_outbox(outbox)
    assert state.rows == {
        "pending": BOUND - 30, "failed": 30, "dead": BOUND - 30, "processing": BOUND, "completed": 0
    }  # fmt: skip
    assert state.estimated == frozenset()
    assert state.by_source_type == {
        "event": {"pending": BOUND - 50, "dead": BOUND - 30},
        "session": {"failed": 30, "processing": BOUND},
        "llm_generation": {"pending": 20},
    }


@pytest.mark.parametrize(
    ("status", "dead", "estimated"),
    [
        ("pending", False, {"pending"}),
        ("failed", False, {"pending", "failed", "dead"}),
        ("failed", True, {"failed", "dead"}),
        ("processing", False, {"processing"}),
    ],
)
async def test_counts_beyond_the_bound_are_estimates_of_the_whole(
    outbox: asyncpg.Connection, status: str, dead: bool, estimated: set[str]
) -> None:
    shown = "dead" if dead else status
    await add(outbox, 3000, "event", "completed")
    await add(outbox, 2000, "event", status, dead=dead)
    await add(outbox, 1000, "session", status, dead=dead)
    state = await read_outbox(outbox)
    assert state.estimated == estimated
    assert state.rows[shown] == pytest.approx(3000, rel=CLOSE)
    assert state.by_source_type["event"][shown] == pytest.approx(2000, rel=CLOSE)
    assert state.by_source_type["session"][shown] == pytest.approx(1000, rel=CLOSE)
    assert sum(state.rows.values()) == pytest.approx(6000, rel=CLOSE)


async def test_what_is_few_stays_exact_beside_what_is_many(outbox: asyncpg.Connection) -> None:
    await add(outbox, 3000)
    await add(outbox, 7, "session", "failed", dead=True)
    await add(outbox, 3, "session", "failed")
    await add(outbox, 5, "session", "processing")
    rows = (await read_outbox(outbox)).rows
    assert (rows["dead"], rows["failed"], rows["processing"]) == (7, 3, 5)


async def test_one_row_more_than_the_bound_is_never_told_as_fewer(outbox: asyncpg.Connection) -> None:
    await add(outbox, 20_000, "event", "completed")  # a sample that hardly meets what waits
    await add(outbox, BOUND + 1)
    state = await read_outbox(outbox)
    assert state.estimated >= {"pending"}
    assert state.rows["pending"] >= BOUND + 1


async def test_lag_is_exact_behind_any_backlog(outbox: asyncpg.Connection) -> None:
    await add(outbox, 1, "session", "failed", minutes=90)
    await add(outbox, 3000, "event", minutes=60)
    await add(outbox, 1, "llm_generation", minutes=61)
    await add(outbox, 1, "usage_ledger", minutes=-60)
    state = await read_outbox(outbox)
    assert state.lag == pytest.approx(90 * 60, abs=3)
    lags = {"session": 90 * 60, "llm_generation": 61 * 60, "event": 3600}
    assert state.lag_seconds == pytest.approx(lags, abs=3)


async def test_lag_of_a_source_type_behind_anothers_backlog_comes_from_the_sample(outbox: asyncpg.Connection) -> None:
    await add(outbox, 3000, "event", minutes=60)
    await add(outbox, 1000, "session", minutes=30)
    state = await read_outbox(outbox)
    assert state.lag_seconds == pytest.approx({"event": 3600, "session": 1800}, abs=3)


async def test_an_orgs_counts_are_exact_up_to_the_bound_and_estimates_beyond(outbox: asyncpg.Connection) -> None:
    await add(outbox, BOUND - 20)
    await add(outbox, 10, "event", "failed")
    await add(outbox, 10, "event", "failed", dead=True)
    await add(outbox, 3000, org_id=2)
    await add(outbox, 1500, "event", "completed", org_id=2)
    ours = await read_outbox_of_org(outbox, 1)
    assert (ours.pending, ours.failed, ours.processing, ours.completed) == (BOUND - 20, 20, 0, 0)
    assert ours.estimated == frozenset()
    theirs = await read_outbox_of_org(outbox, 2)
    assert theirs.estimated == {"pending", "completed"}
    assert theirs.pending == pytest.approx(3000, rel=CLOSE)
    assert theirs.completed == pytest.approx(1500, rel=CLOSE)
    assert (theirs.failed, theirs.processing) == (0, 0)


async def test_an_estimate_is_called_one_over_http(database: str, outbox: asyncpg.Connection) -> None:
    path = "/v1/reports/admin/diagnostics"
    await add(outbox, BOUND)
    async with running_api(database) as api:
        few = (await api.get(path)).json["outbox"]
        await add(outbox, 1000)
        many = (await api.get(path)).json["outbox"]
        all_orgs = (await api.get(f"{path}?org_id=*", by="platform")).json["outbox"]
    assert few["pending"] == BOUND
    assert "estimated" not in few
    assert many["estimated"] == ["completed", "pending"]
    assert all_orgs["estimated"] == ["pending"]
    assert many["pending"] == pytest.approx(BOUND + 1000, rel=CLOSE)
    assert all_orgs["pending"] == many["pending"]
