"""What an error means for the rows of a batch: decided here, once, for all."""

import re
from enum import StrEnum

import asyncpg


class ErrorKind(StrEnum):
    """Whose fault an error is.

    ROW: a row's own; it uses up one of the row's attempts.
    BROKEN: the projection's or the schema's; its rows are put off and lose no attempt.
    TRANSIENT: the moment's; the whole batch is tried again and no row loses an attempt.
    """

    ROW = "row"
    BROKEN = "broken"
    TRANSIENT = "transient"


# SQLSTATE classes that only a row's own data can raise: cardinality, data exceptions, integrity constraints, a limit
# that one value exceeds, and exceptions raised by somebody's trigger.
_ROW_CLASSES = ("21", "22", "23", "27", "44", "54", "P0")

# Classes that say that the statement does not fit the schema or its grants: syntax error or access rule violation,
# feature not supported, invalid schema or catalog name, and a SQL routine's own exceptions.
_BROKEN_CLASSES = ("0A", "26", "2F", "34", "38", "39", "3D", "3F", "42")

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")

_OUR_WORDS = {
    "21": "a statement met more rows than it may",
    "22": "a value does not fit",
    "23": "a constraint of the fact table refused the fact",
    "27": "a trigger changed the same row",
    "42": "the database's schema does not fit the projection",
    "44": "a view's check refused the fact",
    "54": "a value is larger than the database can store",
    "P0": "a trigger or function raised an exception",
}


def classify(error: BaseException) -> ErrorKind:
    """Tells whose fault an error is. What is not known is transient: it is never held against a row."""
    if isinstance(error, asyncpg.exceptions.InvalidCachedStatementError):
        return ErrorKind.TRANSIENT  # 0A000, but only the cached plan is out of date
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate:
        if error.sqlstate[:2] in _ROW_CLASSES:
            return ErrorKind.ROW
        if error.sqlstate[:2] in _BROKEN_CLASSES:
            return ErrorKind.BROKEN
    return ErrorKind.TRANSIENT


def describe(error: BaseException) -> str:
    """An error as SQLSTATE or class and our own words: the database's text may hold row content and is left out."""
    name = type(error).__name__
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate:
        words = _OUR_WORDS.get(error.sqlstate[:2], "the database refused")
        constraint = str(getattr(error, "constraint_name", None) or "")
        where = f" (constraint {constraint})" if _IDENTIFIER.fullmatch(constraint) else ""
        return f"{error.sqlstate} {name}: {words}{where}"
    return name


def is_database_fault(error: BaseException) -> bool:
    """Whether an error comes from the database or the way to it, rather than from a mistake in this program."""
    return isinstance(
        error, asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | TimeoutError
    )
