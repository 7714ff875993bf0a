"""`projector changelog snapshot`: a whole dataset goes out, beside a daemon or alone, and may be ended anywhere."""

import signal
from pathlib import Path

import asyncpg
import pytest

from projector.kafka.topics import changelog_topic
from projector.registry import Registry
from tests.kafka.brokers import Broker
from tests.kafka.changelogs import (
    add_topics,
    assert_topics_hold_the_facts,
    capture,
    cluster,
    held,
    publishing,
    read_topic,
    stored,
)
from tests.obstacles import wait_until
from tests.platform_rows import add_org
from tests.processes import projector, projector_on_terminal, started

pytestmark = pytest.mark.needs("transactions")

ADD = """
INSERT INTO fact_session (org_id, source_key, created_at, time_bucket_day)
SELECT 1 + n % 2, 'session:' || n, now(), now() FROM generate_series(1, $1::integer) AS n
"""


def variables(database: str, bootstrap: str, prefix: str) -> dict[str, str]:
    return {
        "database_url": database, "reporting_changelog_topic_prefix": prefix,
        "reporting_kafka_bootstrap_servers": bootstrap, "reporting_log_format": "json",
    }  # fmt: skip


@pytest.fixture
async def older(connection: asyncpg.Connection, database: str, registry: Registry) -> asyncpg.Connection:
    """A connection to a database whose facts are older than its capturing."""
    for org_id in (1, 2):
        await add_org(connection, org_id)
    await connection.execute(ADD, 4500)
    await capture(database, registry)
    return connection


async def test_a_snapshot_publishes_by_itself_where_no_daemon_does(
    older: asyncpg.Connection, database: str, registry: Registry, broker: Broker, prefix: str, tmp_path: Path
) -> None:
    await add_topics(broker.bootstrap, prefix)
    given = variables(database, broker.bootstrap, prefix)
    done = await projector("changelog", "snapshot", "sessions", folder=tmp_path, **given)
    assert (done.status, done.out) == (0, "4500 facts of sessions published\n"), done.err
    read = await assert_topics_hold_the_facts(older, registry, broker.bootstrap, prefix)
    assert len(read["sessions"]) == 4500


async def test_a_snapshot_shows_how_far_it_is(
    older: asyncpg.Connection, database: str, broker: Broker, prefix: str, tmp_path: Path
) -> None:
    await older.execute("ANALYZE fact_session")
    await add_topics(broker.bootstrap, prefix)
    shown = await projector_on_terminal(
        "changelog", "snapshot", "sessions", folder=tmp_path, **variables(database, broker.bootstrap, prefix)
    )
    assert shown.status == 0
    assert "4500/4500" in shown.out


async def test_a_snapshot_beside_a_daemon_leaves_the_publishing_to_it(
    older: asyncpg.Connection, database: str, registry: Registry, broker: Broker, prefix: str, tmp_path: Path
) -> None:
    await add_topics(broker.bootstrap, prefix)
    async with publishing(database, registry, cluster(broker.bootstrap), prefix) as publisher:
        await publisher.has_logged("publishing the changelog")
        given = variables(database, broker.bootstrap, prefix)
        done = await projector("changelog", "snapshot", "sessions", folder=tmp_path, **given)
        assert done.status == 0
        assert "publishing the changelog" not in done.err
        assert publisher.metric("reporting_changelog_published_total", dataset="sessions") == 4500
    await assert_topics_hold_the_facts(older, registry, broker.bootstrap, prefix)


async def test_a_snapshot_that_was_killed_is_run_again(
    older: asyncpg.Connection, database: str, broker: Broker, prefix: str, tmp_path: Path
) -> None:
    await add_topics(broker.bootstrap, prefix)
    given = variables(database, broker.bootstrap, prefix)
    async with started("changelog", "snapshot", "sessions", folder=tmp_path, **given) as killed:

        async def begun() -> bool:
            return bool(await older.fetchval("SELECT EXISTS (SELECT FROM reporting_fact_changes)"))

        await wait_until(begun)
        killed.send(signal.SIGKILL)
        await killed.end()
    await older.execute("DELETE FROM fact_session WHERE source_key LIKE '%7'")
    again = await projector("changelog", "snapshot", "sessions", folder=tmp_path, **given)
    assert again.status == 0, again.err
    records = await read_topic(broker.bootstrap, changelog_topic(prefix, "sessions"))
    assert held("sessions", records) == await stored(older, "fact_session")


async def test_a_snapshot_of_nothing_ends(
    connection: asyncpg.Connection, database: str, registry: Registry, broker: Broker, prefix: str, tmp_path: Path
) -> None:
    await add_topics(broker.bootstrap, prefix)
    await capture(database, registry)
    given = variables(database, broker.bootstrap, prefix)
    done = await projector("changelog", "snapshot", "turns", folder=tmp_path, **given)
    assert (done.status, done.out) == (0, "0 facts of turns published\n")
    assert not await connection.fetchval("SELECT holder FROM reporting_changelog_publisher"), "the lease is kept"
