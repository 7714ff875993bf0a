"""What the changelog publishes: every change of a fact, whoever makes it, in the order of versions for each key."""

import json
import random
from collections.abc import Callable

import asyncpg
import pytest

from projector.batch import BatchRules
from projector.database import Timeouts
from projector.kafka.topics import changelog_topic
from projector.registry import Registry
from projector.settings import OnSourceGone
from schemas.facts import FACTS_SCHEMA_VERSION, RemovedFact
from tests.histories import Phase, Step
from tests.kafka.brokers import Broker
from tests.kafka.changelogs import (
    add_topics,
    assert_topics_hold_the_facts,
    capture,
    cluster,
    held,
    publishing,
    read_topic,
    until_published,
    version_of,
)
from tests.obstacles import wait_until
from tests.platform_rows import add_org
from tests.stage import Stage

pytestmark = pytest.mark.needs("transactions")

ADD = """
INSERT INTO fact_session (org_id, source_key, created_at, time_bucket_day, projected_at, session_status)
SELECT 1, 'session:' || n, '2026-05-06T10:00:00.123456+02', '2026-05-06', '2026-05-07', $2
FROM generate_series(1, $1::integer) AS n
"""


@pytest.fixture
async def captured(connection: asyncpg.Connection, database: str, registry: Registry) -> asyncpg.Connection:
    """A connection to a database with an org and capturing switched on."""
    await add_org(connection, 1)
    await capture(database, registry)
    return connection


async def test_the_prefix_may_end_in_a_dot() -> None:
    assert changelog_topic("facts", "turns") == changelog_topic("facts.", "turns") == "facts.turns"


async def test_a_fact_is_a_message_with_all_its_columns(
    captured: asyncpg.Connection, database: str, registry: Registry, broker: Broker, prefix: str
) -> None:
    await add_topics(broker.bootstrap, prefix)
    async with publishing(database, registry, cluster(broker.bootstrap), prefix) as publisher:
        await captured.execute(ADD, 1, 'a "quote", ünïcode \x01')
        await until_published(captured)
        assert publisher.metric("reporting_changelog_published_total", dataset="sessions") == 1
        assert publisher.metric("reporting_changelog_published_total", dataset="turns") == 0
        assert publisher.obstacles == {}
    (record,) = await read_topic(broker.bootstrap, changelog_topic(prefix, "sessions"))
    assert record.key == b'{"org_id":1,"source_key":"session:1"}'
    value = json.loads(record.value)
    columns = [
        name
        for (name,) in await captured.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'fact_session'::regclass AND attnum > 0 ORDER BY attnum"
        )
    ]
    assert list(value) == [*columns, "version", "removed"]
    assert (value["session_status"], value["removed"]) == ('a "quote", ünïcode \x01', False)
    assert value["created_at"] == "2026-05-06T08:00:00.123456+00:00"
    assert dict(record.headers) == {
        "version": str(value["version"]).encode(), "projected_at": value["projected_at"].encode(),
        "schema_version": FACTS_SCHEMA_VERSION.encode(),
    }  # fmt: skip


async def test_a_removed_fact_is_a_message_that_says_so_and_a_tombstone(
    captured: asyncpg.Connection, database: str, registry: Registry, broker: Broker, prefix: str
) -> None:
    await add_topics(broker.bootstrap, prefix)
    async with publishing(database, registry, cluster(broker.bootstrap), prefix):
        await captured.execute(ADD, 20, "open")
        await until_published(captured)
        await captured.execute("DELETE FROM fact_session")
        await until_published(captured)
    records = await read_topic(broker.bootstrap, changelog_topic(prefix, "sessions"))
    assert len(records) == 60
    assert held("sessions", records) == {}
    told = next(record for record in records if record.value and b'"removed":true' in record.value)
    removed = RemovedFact.model_validate_json(told.value)
    assert (removed.org_id, removed.version) == (1, version_of(told))
    tombstones = [record for record in records if record.value is None]
    assert {name for record in tombstones for name, _ in record.headers} == {
        "version",
        "projected_at",
        "schema_version",
    }


async def test_facts_that_are_unchanged_since_are_published_once_however_often_they_changed(
    captured: asyncpg.Connection, database: str, registry: Registry, broker: Broker, prefix: str
) -> None:
    await add_topics(broker.bootstrap, prefix)
    await captured.execute(ADD, 3, "open")
    for _ in range(5):
        await captured.execute("UPDATE fact_session SET turn_count = turn_count + 1")
    async with publishing(database, registry, cluster(broker.bootstrap), prefix):
        await until_published(captured)
    read = await assert_topics_hold_the_facts(captured, registry, broker.bootstrap, prefix)
    assert len(read["sessions"]) == 3


@pytest.mark.parametrize("idempotence", [True, False], ids=["transactions", "plain"])
@pytest.mark.parametrize("on_source_gone", list(OnSourceGone))
async def test_topics_hold_the_facts_after_random_histories(
    connection: asyncpg.Connection, database: str, registry: Registry, broker: Broker, prefix: str, idempotence: bool,
    on_source_gone: OnSourceGone,
) -> None:  # fmt: skip
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown where the test fails
    await add_topics(broker.bootstrap, prefix)
    await capture(database, registry)
    rules = BatchRules(registry, Timeouts(30), max_attempts=10, on_source_gone=on_source_gone)
    workers = 1 if on_source_gone is OnSourceGone.REMOVE else 3
    stage = Stage(database, rules)
    await stage.open(workers)
    kafka = cluster(broker.bootstrap, reporting_kafka_idempotence=idempotence)
    try:
        async with publishing(database, registry, kafka, prefix):
            await stage.play(random_phases(random.Random(seed), workers))
            await until_published(connection)
    finally:
        await stage.close()
    read = await assert_topics_hold_the_facts(connection, registry, broker.bootstrap, prefix)
    assert sum(map(len, read.values())) > 100


def random_phases(choice: random.Random, workers: int) -> list[Phase]:
    """A history of some hundred steps."""
    kinds = [
        "add_session", "change_session", "change_session", "call_tool", "call_tool", "call_tool", "end_turn",
        "use_capability", "add_any_event", "add_generation", "report_late_usage", "add_posting", "rename",
        "configure_agent", "delete", "delete_session",
    ]  # fmt: skip
    documents: list[Callable[[], object]] = [
        lambda: {"turn_id": "one", "status": "success", "capability_id": f"c{choice.randrange(3)}", "duration_ms": 7},
        lambda: {
            "turn_id": "two",
            "records": [{"capability_id": "web", "usage_kind": "exposed"}] * choice.randrange(4),
        },
        lambda: [{"ref": f"c{choice.randrange(4)}"}, "web"],
    ]

    def step() -> Step:
        return Step(
            choice.choice(kinds), choice.choice([1, 2]), choice.randrange(40), choice.random() < 0.2,
            choice.choice(documents)(), choice.choice([(0,), (1,), (0, 1)]), choice.random() < 0.3,
        )  # fmt: skip

    return [Phase([step() for _ in range(60)], [choice.randint(1, 8) for _ in range(workers)]) for _ in range(3)]


async def test_a_topic_that_is_missing_keeps_none_of_the_others_waiting(
    captured: asyncpg.Connection, database: str, registry: Registry, broker: Broker, prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("projector.kafka.changelog._TOPICS_SECONDS", 1.0)
    await add_topics(broker.bootstrap, prefix, ["sessions"])
    await captured.execute(ADD, 1, "open")
    await captured.execute(
        "INSERT INTO fact_turn (org_id, source_key, created_at, time_bucket_day) VALUES (1, 'event:1', now(), now())"
    )
    waiting = "SELECT array_agg(DISTINCT dataset) FROM reporting_fact_changes"
    async with publishing(database, registry, cluster(broker.bootstrap), prefix) as publisher:

        async def only_turns_wait() -> bool:
            return bool(await captured.fetchval(waiting) == ["turns"])

        await wait_until(only_turns_wait)
        assert changelog_topic(prefix, "turns") in publisher.obstacles["changelog topics"]
        await add_topics(broker.bootstrap, prefix, [name for name in _datasets(registry) if name != "sessions"])
        await until_published(captured)

        async def no_obstacle() -> bool:
            return publisher.obstacles == {}

        await wait_until(no_obstacle)
    await assert_topics_hold_the_facts(captured, registry, broker.bootstrap, prefix)


def _datasets(registry: Registry) -> list[str]:
    return [table.dataset for table in registry.tables]


LARGE = """
UPDATE fact_session
SET agent_name_snapshot = (SELECT string_agg(md5(n::text), '') FROM generate_series(1, $1::integer) AS n)
WHERE source_key = $2
"""


async def test_a_fact_that_is_too_large_is_told_and_keeps_none_of_the_others_waiting(
    captured: asyncpg.Connection, database: str, registry: Registry, broker: Broker, prefix: str
) -> None:
    await add_topics(broker.bootstrap, prefix)
    await captured.execute(ADD, 500, "open")
    await captured.execute(LARGE, 80_000, "session:77")  # 2.5 MB
    await captured.execute(LARGE, 20_000, "session:78")  # 640 KB
    async with publishing(database, registry, cluster(broker.bootstrap), prefix) as publisher:
        await until_published(captured)
        (line,) = publisher.logged("a fact is larger than its topic takes")
        assert (line["dataset"], line["org_id"], line["source_key"]) == ("sessions", 1, "session:77")
        assert publisher.metric("reporting_changelog_oversized_total", dataset="sessions") == 1
        assert publisher.metric("reporting_changelog_published_total", dataset="sessions") == 499
        await captured.execute("UPDATE fact_session SET agent_name_snapshot = 'small' WHERE source_key = 'session:77'")
        await until_published(captured)
    await assert_topics_hold_the_facts(captured, registry, broker.bootstrap, prefix)


async def test_a_topic_that_takes_less_than_a_batch_gets_smaller_ones(
    captured: asyncpg.Connection, database: str, registry: Registry, broker: Broker, prefix: str
) -> None:
    await add_topics(broker.bootstrap, prefix, max_message_bytes="20000")
    await captured.execute(ADD, 500, "open")
    async with publishing(database, registry, cluster(broker.bootstrap), prefix) as publisher:
        await until_published(captured, 60)
        assert publisher.metric("reporting_changelog_oversized_total", dataset="sessions") == 0
    await assert_topics_hold_the_facts(captured, registry, broker.bootstrap, prefix)
