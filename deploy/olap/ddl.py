"""Writes the tables of three analytical engines from the changelog's JSON Schemas.

They are clickhouse.sql, starrocks.sql and duckdb.sql.
Run by `make schemas`; an argument names another folder.
"""

# ruff: noqa: S608  (what is put together here is DDL, from our own schemas)
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.published import schemas

HEAD = "-- {what}\n-- Written by `make schemas`; change deploy/olap/ddl.py. How to use it: README.md.\n"


@dataclass(frozen=True)
class Column:
    """A fact's column: int64, float, uuid, text, day or moment."""

    name: str
    kind: str
    is_nullable: bool


CLICKHOUSE = {
    "int64": "Int64", "float": "Float64", "uuid": "UUID", "text": "String", "day": "Date32",
    "moment": "DateTime64(6, 'UTC')",
}  # fmt: skip
STARROCKS = {
    "int64": "BIGINT", "float": "DOUBLE", "uuid": "VARCHAR(36)", "text": "STRING", "day": "DATE", "moment": "DATETIME",
}  # fmt: skip
DUCKDB = {
    "int64": "BIGINT", "float": "DOUBLE", "uuid": "UUID", "text": "VARCHAR", "day": "DATE", "moment": "TIMESTAMPTZ",
}  # fmt: skip
KINDS = {"uuid": "uuid", "date": "day", "date-time": "moment", "int64": "int64"}


def datasets() -> dict[str, list[Column]]:
    """The columns of each dataset; `removed` and `version`, which are the changelog's, left out."""
    found = {}
    for name, schema in schemas().items():
        group, dataset = name.split(".")[:2]
        if group == "changelog" and dataset not in ("key", "removed"):
            fields = schema["properties"].items()
            found[dataset] = [_column(field, told) for field, told in fields if field not in ("removed", "version")]
    return found


def _column(name: str, schema: dict[str, Any]) -> Column:
    choices = schema.get("anyOf", [schema])
    first = choices[0]
    kind = "float" if first["type"] == "number" else KINDS[first["format"]] if "format" in first else "text"
    return Column(name, kind, is_nullable={"type": "null"} in choices)


_AND = "\n            AND "


def _lines(lines: list[str]) -> str:
    return ",\n    ".join(lines)


def clickhouse(dataset: str, columns: list[Column]) -> str:
    """A queue that reads Kafka, a table that keeps the highest version of a key, and a view of what is there."""

    def declared(column: Column, types: dict[str, str]) -> str:
        kind = types[column.kind]
        return f"{column.name} {f'Nullable({kind})' if column.is_nullable else kind}"

    def taken(column: Column) -> str:
        if column.kind != "moment":
            return column.name
        otherwise = "Null" if column.is_nullable else "Zero"
        return f"parseDateTime64BestEffortOr{otherwise}(queue.{column.name}, 6, 'UTC') AS {column.name}"

    names = [column.name for column in columns]
    return f"""
CREATE TABLE IF NOT EXISTS reporting.{dataset}_queue (
    {_lines([declared(column, {**CLICKHOUSE, "moment": "String"}) for column in columns])},
    removed UInt8,
    version UInt64
) ENGINE = Kafka
SETTINGS
    kafka_broker_list = 'kafka:9092',
    kafka_topic_list = 'reporting.facts.{dataset}',
    kafka_group_name = 'clickhouse-reporting',
    kafka_format = 'JSONEachRow';

CREATE TABLE IF NOT EXISTS reporting.{dataset}_versions (
    {_lines([declared(column, CLICKHOUSE) for column in columns])},
    removed UInt8,
    version UInt64
) ENGINE = ReplacingMergeTree(version, removed)
ORDER BY (org_id, source_key);

CREATE MATERIALIZED VIEW IF NOT EXISTS reporting.{dataset}_load TO reporting.{dataset}_versions AS
SELECT
    {_lines([taken(column) for column in columns])},
    removed,
    version
FROM reporting.{dataset}_queue AS queue;

CREATE VIEW IF NOT EXISTS reporting.{dataset} AS
SELECT
    {_lines(names)}
FROM reporting.{dataset}_versions FINAL;
"""


def starrocks(dataset: str, columns: list[Column]) -> str:
    """A table by key, which Routine Load fills with what has a higher version, and a view of what is there."""
    keys = {"org_id": "BIGINT NOT NULL", "source_key": "VARCHAR(1100) NOT NULL"}
    # A removed fact has no more than its key.
    declared = [f"{column.name} {keys.get(column.name, STARROCKS[column.kind] + ' NULL')}" for column in columns]
    moments = [column.name for column in columns if column.kind == "moment"]
    read = [f"{column.name}_text" if column.kind == "moment" else column.name for column in columns]
    paths = ", ".join(f'\\"$.{name}\\"' for name in [*(column.name for column in columns), "removed", "version"])
    taken = [f"{name} = CAST(regexp_replace({name}_text, '(Z|[+-]00:00)$', '') AS DATETIME)" for name in moments]
    return f"""
CREATE TABLE IF NOT EXISTS reporting.{dataset}_versions (
    {_lines(declared)},
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL
) PRIMARY KEY (org_id, source_key)
DISTRIBUTED BY HASH (org_id, source_key)
PROPERTIES ("enable_persistent_index" = "true");

CREATE VIEW IF NOT EXISTS reporting.{dataset} AS
SELECT
    {_lines([column.name for column in columns])}
FROM reporting.{dataset}_versions
WHERE NOT removed;

CREATE ROUTINE LOAD reporting.{dataset}_load ON {dataset}_versions
COLUMNS (
    {_lines([*read, "removed", "version", *taken])}
)
PROPERTIES (
    "format" = "json",
    "jsonpaths" = "[{paths}]",
    "merge_condition" = "version",
    "max_filter_ratio" = "1"
)
FROM KAFKA (
    "kafka_broker_list" = "kafka:9092",
    "kafka_topic" = "reporting.facts.{dataset}",
    "property.group.id" = "starrocks-reporting",
    "property.kafka_default_offsets" = "OFFSET_BEGINNING"
);
"""


def duckdb(dataset: str, columns: list[Column]) -> str:
    """A table that keeps the highest version of a key, and a view of what is there."""

    def declared(column: Column) -> str:
        # Of a removed fact only these are known.
        needed = " NOT NULL" if column.name in ("org_id", "source_key", "projected_at") else ""
        return f"{column.name} {DUCKDB[column.kind]}{needed}"

    needed = [column.name for column in columns if not column.is_nullable]
    return f"""
CREATE TABLE IF NOT EXISTS {dataset}_versions (
    {_lines([declared(column) for column in columns])},
    removed BOOLEAN NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (org_id, source_key),
    CHECK (
        removed
        OR ({_AND.join(f"{name} IS NOT NULL" for name in needed)})
    )
);

CREATE OR REPLACE VIEW {dataset} AS
SELECT
    {_lines([column.name for column in columns])}
FROM {dataset}_versions
WHERE NOT removed;
"""


def files() -> dict[str, str]:
    """The three files by name."""
    found = datasets()
    offsets = """
CREATE TABLE IF NOT EXISTS changelog_offsets (
    topic VARCHAR,
    partition INTEGER,
    next_offset BIGINT NOT NULL,
    PRIMARY KEY (topic, partition)
);
"""
    create = "\nCREATE DATABASE IF NOT EXISTS reporting;\n"
    heads = {
        name: HEAD.format(what=f"{engine} reads the facts' changelog. Replace kafka:9092 and reporting.facts by yours.")
        for name, engine in {"clickhouse.sql": "ClickHouse", "starrocks.sql": "StarRocks"}.items()
    }
    heads["duckdb.sql"] = HEAD.format(what="The tables that load.py keeps in a DuckDB database.")
    each = found.items()
    return {
        "clickhouse.sql": heads["clickhouse.sql"] + create + "".join(clickhouse(*one) for one in each),
        "starrocks.sql": heads["starrocks.sql"] + create + "".join(starrocks(*one) for one in each),
        "duckdb.sql": heads["duckdb.sql"] + offsets + "".join(duckdb(*one) for one in each),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
