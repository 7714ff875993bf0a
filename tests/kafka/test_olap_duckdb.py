"""deploy/olap/load.py: the changelog's topics become DuckDB tables and Parquet files, run after run."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from aiokafka import AIOKafkaProducer

from tests.kafka.brokers import Broker
from tests.kafka.clients import producer
from tests.kafka.conftest import MakeTopic
from tests.olap import AT, DATASETS, FOLDER, fact, key, removed, statements

pytestmark = pytest.mark.needs("end_offsets")

Load = Callable[..., Any]


@pytest.fixture
def load(broker: Broker, prefix: str, tmp_path: Path) -> Load:
    """Runs the loader as its README says; gives its output, and of a failure what it says on the error stream."""

    async def run(*more: str, fails: bool = False) -> str:
        command = [str(FOLDER / "load.py"), str(tmp_path / "facts.duckdb"), "--prefix", prefix]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, "--bootstrap-servers", broker.bootstrap, *more,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, errors = await asyncio.wait_for(process.communicate(), 60)
        assert (process.returncode != 0) is fails, errors.decode()
        return (errors if fails else out).decode().strip()

    return run


@pytest.fixture
async def topics(topic: MakeTopic) -> None:
    for dataset in DATASETS:
        await topic(f".{dataset}", 2)


async def send(publisher: AIOKafkaProducer, topic: str, *messages: dict[str, Any]) -> None:
    """Each fact to the partition of its key; a removed one is followed by its tombstone."""
    for message in messages:
        partition = sum(key(message)) % 2
        await publisher.send_and_wait(topic, json.dumps(message).encode(), key(message), partition)
        if message["removed"]:
            await publisher.send_and_wait(topic, None, key(message), partition)


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(path / "facts.duckdb", read_only=True) as database:
        return database.execute(query).fetchall()


@pytest.mark.usefixtures("topics")
async def test_the_highest_version_of_each_fact_is_kept(
    broker: Broker, prefix: str, load: Load, tmp_path: Path
) -> None:
    async with producer(bootstrap_servers=broker.bootstrap) as publisher:
        for dataset in DATASETS:
            messages = [
                fact(dataset, "kept", 1), fact(dataset, "kept", 3, agent_name_snapshot="new", not_known="x"),
                fact(dataset, "kept", 2), removed("gone", 5), fact(dataset, "gone", 4),
                fact(dataset, "back", 1), removed("back", 2), fact(dataset, "back", 3),
            ]  # fmt: skip
            await send(publisher, f"{prefix}.{dataset}", *messages, *messages)
        assert await load("--parquet", str(tmp_path / "parquet")) == f"{6 * 20} messages loaded"
        for dataset in DATASETS:
            found = rows(tmp_path, f"SELECT to_json(f) FROM {dataset} AS f ORDER BY source_key")
            told = [json.loads(text) for (text,) in found]
            assert [(row["source_key"], row["agent_name_snapshot"]) for row in told] == [
                ("back", "a agent_name_snapshot, 'ü'"),
                ("kept", "new"),
            ]
            expected = fact(dataset, "kept", 3, agent_name_snapshot="new")
            moment = AT.replace("T", " ").removesuffix(":00")
            for name, value in told[1].items():
                assert value == (moment if expected[name] == AT else expected[name]), name
            with duckdb.connect() as reader:
                path = tmp_path / "parquet" / f"{dataset}.parquet"
                assert reader.execute("SELECT count(*) FROM read_parquet(?)", [str(path)]).fetchone() == (2,)
        for query in statements("queries.sql"):
            assert rows(tmp_path, query)

        # The next run goes on: it reads what is new, and what is older than what it has changes nothing.
        assert await load() == "0 messages loaded"
        newer = [fact("turns", "kept", 4, agent_name_snapshot="newer"), fact("turns", "gone", 4), removed("back", 6)]
        await send(publisher, f"{prefix}.turns", *newer)
        assert await load() == "4 messages loaded"
        assert rows(tmp_path, "SELECT source_key, agent_name_snapshot FROM turns") == [("kept", "newer")]
        await send(publisher, f"{prefix}.turns", fact("turns", "gone", 6))
        assert await load() == "1 messages loaded"
        assert rows(tmp_path, "SELECT source_key FROM turns ORDER BY 1") == [("gone",), ("kept",)]


@pytest.mark.usefixtures("topics")
async def test_numbers_that_are_none_and_nulls_are_loaded(
    broker: Broker, prefix: str, load: Load, tmp_path: Path
) -> None:
    async with producer(bootstrap_servers=broker.bootstrap) as publisher:
        postings = [
            fact("budget_postings", text, 1, amount=text, currency=None) for text in ("NaN", "Infinity", "-Infinity")
        ]
        await send(publisher, f"{prefix}.budget_postings", *postings)
    await load()
    assert rows(tmp_path, "SELECT amount::VARCHAR, currency FROM budget_postings ORDER BY amount") == [
        ("-inf", None), ("inf", None), ("nan", None),
    ]  # fmt: skip


@pytest.mark.usefixtures("topics")
async def test_a_message_that_cannot_be_stored_leaves_neither_rows_nor_an_offset(
    broker: Broker, prefix: str, load: Load, tmp_path: Path
) -> None:
    topic = f"{prefix}.turns"
    async with producer(bootstrap_servers=broker.bootstrap) as publisher:
        await publisher.send_and_wait(topic, json.dumps(fact("turns", "first", 1)).encode(), b"", 0)
        assert await load() == "1 messages loaded"
        await publisher.send_and_wait(topic, json.dumps(fact("turns", "second", 1)).encode(), b"", 0)
        await publisher.send_and_wait(topic, json.dumps(fact("turns", "s3cret", 1, created_at=None)).encode(), b"", 0)
    for _ in range(2):
        complaint = await load(fails=True)
        assert "ConstraintException" in complaint
        assert "s3cret" not in complaint
        assert rows(tmp_path, "SELECT source_key FROM turns") == [("first",)]
        assert rows(tmp_path, f"SELECT next_offset FROM changelog_offsets WHERE topic = '{topic}'") == [(1,)]


@pytest.mark.usefixtures("topics")
async def test_rows_are_stored_with_their_offset_or_not_at_all(
    broker: Broker, prefix: str, load: Load, tmp_path: Path
) -> None:
    with duckdb.connect(tmp_path / "facts.duckdb") as database:  # one that refuses the second offset
        database.execute(
            "CREATE TABLE changelog_offsets (topic VARCHAR, partition INTEGER,"
            " next_offset BIGINT NOT NULL CHECK (next_offset < 2), PRIMARY KEY (topic, partition))"
        )
    async with producer(bootstrap_servers=broker.bootstrap) as publisher:
        for name in ("first", "second"):
            await publisher.send_and_wait(f"{prefix}.turns", json.dumps(fact("turns", name, 1)).encode(), b"", 0)
            await load(fails=name == "second")
    assert rows(tmp_path, "SELECT source_key FROM turns") == [("first",)]


@pytest.mark.usefixtures("topics")
async def test_a_topic_that_was_made_anew_is_read_from_its_beginning(
    broker: Broker, prefix: str, load: Load, tmp_path: Path
) -> None:
    async with producer(bootstrap_servers=broker.bootstrap) as publisher:
        await send(publisher, f"{prefix}.turns", fact("turns", "one", 1))
    await load()
    with duckdb.connect(tmp_path / "facts.duckdb") as database:  # as if more had been read of the topic before
        database.execute("UPDATE changelog_offsets SET next_offset = 1000")
        database.execute("DELETE FROM turns_versions")
    assert await load() == "1 messages loaded"
    assert rows(tmp_path, "SELECT source_key FROM turns") == [("one",)]


@pytest.mark.needs("transactions")
@pytest.mark.usefixtures("topics")
async def test_the_marks_of_transactions_are_passed_over_and_aborted_ones_not_loaded(
    broker: Broker, prefix: str, load: Load, tmp_path: Path
) -> None:
    async with producer(bootstrap_servers=broker.bootstrap, transactional_id=f"{prefix}x") as publisher:
        for name in ("aborted", "committed"):
            await publisher.begin_transaction()
            await send(publisher, f"{prefix}.turns", fact("turns", name, 1))
            await (publisher.abort_transaction() if name == "aborted" else publisher.commit_transaction())
    assert await load() == "1 messages loaded"
    assert rows(tmp_path, "SELECT source_key FROM turns") == [("committed",)]


async def test_a_prefix_without_topics_is_told(load: Load, prefix: str) -> None:
    assert f"no topic begins with {prefix}" in await load(fails=True)
