"""The tables of deploy/olap: what the generator writes, with the columns of the fact tables; ClickHouse's, executed."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.olap import AT, DATASETS, FOLDER, fact, removed, statements

FILES = ("clickhouse.sql", "starrocks.sql", "duckdb.sql")
TYPES = {
    "bigint": ("Int64", "BIGINT", "BIGINT"),
    "double precision": ("Float64", "DOUBLE", "DOUBLE"),
    "uuid": ("UUID", "VARCHAR(36)", "UUID"),
    "text": ("String", "STRING", "VARCHAR"),
    "date": ("Date32", "DATE", "DATE"),
    "timestamp with time zone": ("DateTime64(6, 'UTC')", "DATETIME", "TIMESTAMPTZ"),
}
KEYS = {"org_id": "BIGINT NOT NULL", "source_key": "VARCHAR(1100) NOT NULL"}


def declared(file: str, table: str) -> dict[str, str]:
    """The columns that a file declares for a table, with what it says of each."""
    text = (FOLDER / file).read_text(encoding="utf-8")
    found = re.search(rf"CREATE TABLE IF NOT EXISTS (?:reporting\.)?{table} \(\n(.*?)\n\)", text, re.DOTALL)
    assert found, table
    lines = re.findall(r"^    (\w+) (.+?),?$", found[1], re.MULTILINE)
    return {name: kind for name, kind in lines if name not in ("PRIMARY", "CHECK")}


def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, FOLDER / "ddl.py", tmp_path], check=True, timeout=60)
    for name in FILES:
        assert (FOLDER / name).read_text(encoding="utf-8") == (tmp_path / name).read_text(encoding="utf-8"), (
            "run `make schemas`"
        )


@pytest.mark.parametrize(("dataset", "table"), DATASETS.items())
async def test_the_columns_are_those_of_the_fact_table(
    connection: asyncpg.Connection, dataset: str, table: str
) -> None:
    columns = await connection.fetch(
        "SELECT column_name, data_type, is_nullable = 'YES' AS is_nullable FROM information_schema.columns"
        " WHERE table_name = $1",
        table,
    )
    assert len(columns) > 15
    clickhouse, starrocks, duckdb = (declared(file, f"{dataset}_versions") for file in FILES)
    assert clickhouse.pop("removed") == "UInt8"
    assert starrocks.pop("removed") == duckdb.pop("removed") == "BOOLEAN NOT NULL"
    assert clickhouse.pop("version") == "UInt64"
    assert starrocks.pop("version") == duckdb.pop("version") == "BIGINT NOT NULL"
    assert set(clickhouse) == set(starrocks) == set(duckdb) == {name for name, _, _ in columns}
    needed = re.search(rf"{dataset}_versions \(.*?OR \((.*?)\)", (FOLDER / "duckdb.sql").read_text("utf-8"), re.DOTALL)
    assert needed
    assert set(re.findall(r"(\w+) IS NOT NULL", needed[1])) == {
        name for name, _, is_nullable in columns if not is_nullable
    }
    for name, kind, is_nullable in columns:
        types = TYPES[kind]
        assert clickhouse[name] == (f"Nullable({types[0]})" if is_nullable else types[0])
        assert starrocks[name] == KEYS.get(name, f"{types[1]} NULL")
        assert duckdb[name].removesuffix(" NOT NULL") == types[2]


@pytest.mark.parametrize("dataset", DATASETS)
def test_each_column_is_loaded_and_shown(dataset: str) -> None:
    columns = [name for name in declared("clickhouse.sql", f"{dataset}_versions") if name not in ("removed", "version")]
    for file in FILES:
        text = (FOLDER / file).read_text(encoding="utf-8")
        shown = re.search(
            rf"VIEW (?:IF NOT EXISTS )?(?:reporting\.)?{dataset} AS\nSELECT\n(.*?)\nFROM", text, re.DOTALL
        )
        assert shown
        assert re.findall(r"\w+", shown[1]) == columns
    load = re.search(
        rf"ON {dataset}_versions\nCOLUMNS \((.*?)\n\)", (FOLDER / "starrocks.sql").read_text("utf-8"), re.DOTALL
    )
    assert load
    assert {line.split(" = ")[0].strip(" ,").removesuffix("_text") for line in load[1].strip().splitlines()} == {
        *columns, "removed", "version",
    }  # fmt: skip


# ClickHouse's engine, in this process. It has no Kafka engine: a table of engine Null, from which materialized views
# read what is inserted just as they do from Kafka, stands in its place.


class ClickHouse:
    def __init__(self, session: Any) -> None:
        self.session = session
        for statement in statements("clickhouse.sql"):
            session.query(re.sub(r"ENGINE = Kafka\nSETTINGS.*", "ENGINE = Null", statement, flags=re.DOTALL))

    def consume(self, dataset: str, *messages: dict[str, Any]) -> None:
        """Each in a block of its own, as the Kafka engine reads them: unknown fields are skipped."""
        for message in messages:
            self.session.query(
                f"INSERT INTO reporting.{dataset}_queue SETTINGS input_format_skip_unknown_fields = 1"
                f" FORMAT JSONEachRow {json.dumps(message)}"
            )

    def rows(self, query: str) -> list[dict[str, Any]]:
        text = str(self.session.query(f"{query} SETTINGS output_format_json_quote_64bit_integers = 0", "JSONEachRow"))
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def clickhouse() -> Iterator[ClickHouse]:
    chdb = pytest.importorskip(
        "chdb.session", reason="chdb is not installed; it is too large to be needed: pip install chdb"
    )
    session = chdb.Session()
    yield ClickHouse(session)
    session.close()


@pytest.mark.parametrize("dataset", DATASETS)
def test_clickhouse_keeps_the_highest_version_of_each_fact(clickhouse: ClickHouse, dataset: str) -> None:
    messages = [
        fact(dataset, "kept", 3, agent_name_snapshot="new", not_known="x"), fact(dataset, "kept", 2),
        removed("kept", 1),
        removed("gone", 5), fact(dataset, "gone", 4), removed("gone", 5),
        fact(dataset, "back", 1), removed("back", 2), fact(dataset, "back", 3),
    ]  # fmt: skip
    clickhouse.consume(dataset, *messages, *messages)
    rows = clickhouse.rows(f"SELECT * FROM reporting.{dataset} ORDER BY source_key")
    assert [(row["source_key"], row["agent_name_snapshot"]) for row in rows] == [
        ("back", "a agent_name_snapshot, 'ü'"),
        ("kept", "new"),
    ]
    expected = fact(dataset, "kept", 3, agent_name_snapshot="new")
    for row in rows[1:]:
        for name, value in row.items():
            moment = AT.replace("T", " ").removesuffix("+00:00")
            assert value == (moment if expected[name] == AT else expected[name]), name


def test_clickhouse_takes_nulls_and_numbers_that_are_none(clickhouse: ClickHouse) -> None:
    clickhouse.consume("sessions", fact("sessions", "null", 1, started_at=None, session_status=None, app_id=None))
    assert clickhouse.rows(
        "SELECT started_at, session_status, app_id FROM reporting.sessions WHERE source_key = 'null'"
    ) == [{"started_at": None, "session_status": None, "app_id": None}]
    for text in ("NaN", "Infinity", "-Infinity"):
        clickhouse.consume("budget_postings", fact("budget_postings", text, 1, amount=text))
    query = "SELECT toString(amount) AS text FROM reporting.budget_postings WHERE amount != 1.5 OR isNaN(amount)"
    assert {row["text"] for row in clickhouse.rows(query)} == {"nan", "inf", "-inf"}


def test_the_reports_run_on_clickhouse(clickhouse: ClickHouse) -> None:
    for dataset in DATASETS:
        clickhouse.consume(dataset, fact(dataset, "report", 1))
    clickhouse.session.query("USE reporting")
    for query in statements("queries.sql"):
        assert clickhouse.rows(query.replace("quantile(duration_ms, 0.95)", "quantile(0.95)(duration_ms)"))
