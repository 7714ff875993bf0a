"""Loads the facts' changelog into a DuckDB database, and goes on where it stopped; `--help` tells how."""

import argparse
import asyncio
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import duckdb
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

CLIENT = "reporting-olap"
TABLES = Path(__file__).parent / "duckdb.sql"
QUIET_MS = 10_000  # a partition that says nothing for so long is left as it is: something holds its end back
BATCH = 20_000  # messages


def datasets(database: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """The columns of each dataset's table with their types."""
    rows = database.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns()"
        " WHERE suffix(table_name, '_versions') ORDER BY table_name, column_index"
    ).fetchall()
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in rows:
        found.setdefault(table.removesuffix("_versions"), {})[column] = kind
    return found


def upsert(dataset: str, columns: dict[str, str]) -> str:
    """The statement that takes JSON texts and keeps, of each key, the highest version, those in the table included."""
    paths = ", ".join(f"'$.{name}'" for name in columns)
    typed = ", ".join(
        f"CAST(field[{place}] AS {kind}) AS {name}" for place, (name, kind) in enumerate(columns.items(), 1)
    )
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in ("org_id", "source_key"))
    return f"""
        INSERT INTO {dataset}_versions
        SELECT {typed}
        FROM (SELECT json_extract_string(message, [{paths}]) AS field FROM (SELECT unnest(?::VARCHAR[]) AS message))
        QUALIFY row_number() OVER (PARTITION BY org_id, source_key ORDER BY version DESC) = 1
        ON CONFLICT (org_id, source_key) DO UPDATE SET {changed}
        WHERE excluded.version > {dataset}_versions.version
    """  # noqa: S608  # the names come from duckdb.sql


class Loader:
    """A DuckDB database with the facts, and how far each partition has been read: written together or not at all."""

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self.database = database
        database.execute(TABLES.read_text(encoding="utf-8"))
        self.statements = {name: upsert(name, columns) for name, columns in datasets(database).items()}

    def offsets(self) -> dict[TopicPartition, int]:
        """Where to go on."""
        rows = self.database.execute("SELECT topic, partition, next_offset FROM changelog_offsets").fetchall()
        return {TopicPartition(topic, partition): offset for topic, partition, offset in rows}

    def store(self, dataset: str, partition: TopicPartition, values: Sequence[bytes | None], next_offset: int) -> None:
        """Stores messages of a partition in one transaction; tombstones say nothing that the message before has not."""
        messages = [value.decode() for value in values if value]
        with self.database.cursor() as cursor:
            cursor.begin()
            if messages:
                cursor.execute(self.statements[dataset], [messages])
            cursor.execute("INSERT OR REPLACE INTO changelog_offsets VALUES (?, ?, ?)", [*partition, next_offset])
            cursor.commit()

    def write_parquet(self, folder: Path) -> None:
        """Writes each dataset to a file, in the place of the one before."""
        folder.mkdir(parents=True, exist_ok=True)
        for dataset in self.statements:
            made = folder / f".{dataset}.parquet"
            self.database.table(dataset).write_parquet(str(made))
            made.replace(folder / f"{dataset}.parquet")


async def find(bootstrap_servers: str, topics: Collection[str]) -> list[TopicPartition]:
    """The partitions of those of the topics that are there."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, client_id=CLIENT)
    await admin.start()
    try:
        there = [topic for topic in await admin.list_topics() if topic in topics]
        described = await admin.describe_topics(there) if there else []
    finally:
        await admin.close()
    return [TopicPartition(one["topic"], part["partition"]) for one in described for part in one["partitions"]]


async def load(
    loader: Loader, consumer: AIOKafkaConsumer, partitions: list[TopicPartition], topics: dict[str, str]
) -> int:
    """Reads all that the partitions hold by now, of topics whose datasets are told; gives how many messages."""
    await begin(consumer, partitions, loader.offsets())
    ends = await consumer.end_offsets(partitions)
    count = 0
    while behind := [one for one in partitions if await consumer.position(one) < ends[one]]:
        before = [await consumer.position(one) for one in behind]
        fetched = await consumer.getmany(*behind, timeout_ms=QUIET_MS, max_records=BATCH)
        for partition, records in fetched.items():
            values = [record.value for record in records]
            loader.store(topics[partition.topic], partition, values, records[-1].offset + 1)
            count += len(records)
        if not fetched and before == [await consumer.position(one) for one in behind]:
            print(f"nothing more came of {len(behind)} partitions; the next run goes on there", file=sys.stderr)
            break
    return count


async def begin(
    consumer: AIOKafkaConsumer, partitions: list[TopicPartition], offsets: dict[TopicPartition, int]
) -> None:
    """Goes to where the last run has ended; to the beginning of a partition that is new, or was made anew."""
    consumer.assign(partitions)
    ends = await consumer.end_offsets(partitions)
    beginnings = await consumer.beginning_offsets(partitions)
    for partition in partitions:
        offset = offsets.get(partition, 0)
        consumer.seek(
            partition, max(offset, beginnings[partition]) if offset <= ends[partition] else beginnings[partition]
        )


async def run(arguments: argparse.Namespace) -> None:
    """Loads, and writes Parquet files where they are wanted."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=arguments.bootstrap_servers,
        client_id=CLIENT,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    with duckdb.connect(arguments.database) as database:
        loader = Loader(database)
        topics = {f"{arguments.prefix.removesuffix('.')}.{dataset}": dataset for dataset in loader.statements}
        partitions = await find(arguments.bootstrap_servers, topics)
        if not partitions:
            raise SystemExit(f"no topic begins with {arguments.prefix}: is it the projectors' prefix, and do they run?")
        await consumer.start()
        try:
            count = await load(loader, consumer, partitions, topics)
        finally:
            await consumer.stop()
        print(f"{count} messages loaded")
        if arguments.parquet:
            loader.write_parquet(arguments.parquet)


def main() -> None:
    """Reads the command line, and runs."""
    parser = argparse.ArgumentParser(description="Loads the facts' changelog into a DuckDB database, up to now.")
    parser.add_argument("database", help="the database's file; made where it is missing")
    parser.add_argument("--bootstrap-servers", required=True, help="host:port, several parted by commas")
    parser.add_argument("--prefix", required=True, help="REPORTING_CHANGELOG_TOPIC_PREFIX of the projectors")
    parser.add_argument("--parquet", type=Path, help="a folder to write a Parquet file of each dataset to")
    try:
        asyncio.run(run(parser.parse_args()))
    except (KafkaError, duckdb.Error) as error:
        raise SystemExit(f"not loaded, {type(error).__name__}: what was committed stays; run it again") from None


if __name__ == "__main__":
    main()
