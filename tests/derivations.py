"""Rows to derive facts from, and the facts that came of them, for tests that write down what they expect."""

import hashlib
import random
import string
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import asyncpg

from projector.batch import BatchResult, BatchRules
from tests.platform_rows import add_event
from tests.scenes import project

MOST = 9223372036854775807
"""The largest bigint."""

NUMBERS: dict[str, int | None] = {
    "0": 0, "1": 1, "42": 42, f"{MOST}": MOST, f"{MOST + 1}": None, "12345678901234567890": None, "1" * 300: None,
    "-1": None, "-0": 0, f"-{MOST}": None, "1.5": None, "1.0": None, "100e-2": None, "1e5": 100_000, "1E+2": 100,
    "1e18": 10**18, "1e19": None, "1e400": None, "1e-400": None, '"12"': 12, '"007"': 7, '"0"': 0, '"00"': 0,
    f'"{"0" * 300}7"': 7, f'"000{MOST}"': MOST, f'"{MOST}"': MOST, f'"{MOST + 1}"': None, f'"{"9" * 19}"': None,
    f'"{"9" * 5000}"': None, '"-1"': None, '"-0"': None, '"+1"': None, '"1.0"': None, '"1e5"': None, '""': None,
    '" 12"': None, '"12 "': None, r'"12\n"': None, r'"\n12"': None, r'"1\n2"': None, '"0x10"': None, '"1_000"': None,
    '"1,000"': None, '"twelve"': None, r'"\u0661\u0662"': None, r'"\uff11\uff12"': None, r'"\u00b2"': None,
    '"NaN"': None, '"Infinity"': None, "true": None, "false": None, "null": None, "[]": None, "[5]": None,
    "{}": None, '{"value": 5}': None,
}  # fmt: skip
"""JSON values, and the number each stands for; None where it stands for none, and the default is taken."""

EARLY = datetime(2026, 5, 6, 23, 30, tzinfo=UTC)
EARLY_DAY = date(2026, 5, 6)
"""A moment that is on the next day already in many places east of Greenwich."""


def at(hour: int, minute: int = 0, second: int = 0, microsecond: int = 0) -> datetime:
    """A moment of 6 May 2026, in UTC."""
    return datetime(2026, 5, 6, hour, minute, second, microsecond, tzinfo=UTC)


def long_text(length: int = 10_000) -> str:
    """Text that does not compress: an index would refuse it as it is."""
    return "".join(random.choices(string.ascii_letters + string.digits, k=length))


def shortened(value: str) -> str:
    """What stands in an indexed column for a text of more than 1,000 bytes."""
    return value[:200] + "#" + hashlib.sha256(value.encode()).hexdigest()


async def project_events(
    connection: asyncpg.Connection,
    rules: BatchRules,
    session: UUID,
    event_type: str,
    documents: Sequence[Any],
    contexts: Sequence[Any] = (),
) -> tuple[list[UUID], BatchResult]:
    """Writes an event with each of the documents and projects them all; gives their ids and the result."""
    contexts = [*contexts, *[{}] * (len(documents) - len(contexts))]
    events = [
        await add_event(connection, session, event_type, data, context)
        for data, context in zip(documents, contexts, strict=True)
    ]
    return events, await project(connection, rules, *(("event", event) for event in events))


async def fact(connection: asyncpg.Connection, table: str, source_key: str, *columns: str) -> Any:
    """Columns of one fact: a dict of all but projected_at, the value of one, or a tuple; None where there is none."""
    row = await connection.fetchrow(f"SELECT * FROM {table} WHERE source_key = $1", source_key)
    if row is None:
        return None
    if not columns:
        return {name: value for name, value in row.items() if name != "projected_at"}
    return row[columns[0]] if len(columns) == 1 else tuple(row[column] for column in columns)


async def facts_of(connection: asyncpg.Connection, table: str, keys: Sequence[str], *columns: str) -> list[Any]:
    """The same for several facts, in the order of their keys."""
    return [await fact(connection, table, key, *columns) for key in keys]
