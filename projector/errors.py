"""What an error means for the rows of a batch: decided here, once, for all."""

from enum import StrEnum

import asyncpg


class PoolerError(Exception):
    """The way to the database leads through a transaction pooler, and the program needs a direct connection."""

    WORDS = "DATABASE_URL leads through a transaction pooler, a direct connection is needed"

    def __init__(self) -> None:
        super().__init__(self.WORDS)


class ErrorKind(StrEnum):
    """Whose fault an error is.

    ROW: a row's own; it uses up one of the row's attempts.
    BROKEN: the projection's or the schema's: where it fails for any row, its rows are put off and lose no attempt; else
        it is a row's own, as of a trigger that refuses it.
    CONTENDED: something is in some row's way, such as a lock. The batch is tried again; if that does not help, the rows
        concerned are put off and lose no attempt.
    TRANSIENT: the moment's; the batch is tried again as a whole and no row loses an attempt.
    """

    ROW = "row"
    BROKEN = "broken"
    CONTENDED = "contended"
    TRANSIENT = "transient"


# By the first two characters of SQLSTATE. What is in none of these is a row's own: data, integrity constraints, limits
# of what can be stored, exceptions of somebody's trigger under P0 or under a code of its own.

# Connection, transaction state, authorization, resources, operator intervention, the system around the server.
_TRANSIENT_CLASSES = ("08", "25", "28", "53", "57", "58", "F0", "HV")

# Rollback (deadlock, serialization), object in use (lock timeout), internal errors; and 57014, a statement's timeout.
_CONTENDED_CLASSES = ("40", "55", "XX")
_QUERY_CANCELED = "57014"

# The statement does not fit the schema or its grants, and what else only a mistake of ours can raise.
_BROKEN_CLASSES = (
    "00", "01", "02", "03", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "24", "26", "2B", "2D", "2F", "34", "38",
    "39", "3B", "3D", "3F", "42", "72",
)  # fmt: skip

# A prepared statement is gone, or its name is taken: no row's fault and no projection's, but a transaction pooler's.
_POOLER_CODES = ("26000", "42P05")
_POOLER_WORDS = "a prepared statement was lost; behind a transaction pooler set REPORTING_STATEMENT_CACHE_SIZE=0"

_OUR_WORDS = {
    "21": "a statement met more rows than it may",
    "22": "a value does not fit",
    "23": "a constraint of the fact table refused the fact, the server's log names it",
    "25006": "the server is read-only, as a standby is",
    "27": "a trigger changed the same row",
    "42": "the database's schema does not fit the projection",
    "42501": "a grant is missing: run deploy/sql/roles.sql again after `projector migrate`",
    "44": "a view's check refused the fact",
    "54": "a value is larger than the database can store",
    "P0": "a trigger or function raised an exception",
}


def classify(error: BaseException) -> ErrorKind:
    """Tells whose fault an error is. What does not come from the server is transient."""
    if isinstance(error, asyncpg.exceptions.InvalidCachedStatementError):
        return ErrorKind.TRANSIENT  # 0A000, but only the cached plan is out of date
    if not isinstance(error, asyncpg.PostgresError) or not error.sqlstate:
        return ErrorKind.TRANSIENT
    if error.sqlstate in _POOLER_CODES:
        return ErrorKind.TRANSIENT
    if error.sqlstate == _QUERY_CANCELED or error.sqlstate[:2] in _CONTENDED_CLASSES:
        return ErrorKind.CONTENDED
    if error.sqlstate[:2] in _TRANSIENT_CLASSES:
        return ErrorKind.TRANSIENT
    return ErrorKind.BROKEN if error.sqlstate[:2] in _BROKEN_CLASSES else ErrorKind.ROW


def describe(error: BaseException) -> str:
    """An error as SQLSTATE, class and our own words.

    All that the database says beside the SQLSTATE may hold row content, names of constraints included where a trigger
    makes them up; it is left out, and stands in the server's log.
    """
    name = type(error).__name__
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate:
        words = _OUR_WORDS.get(error.sqlstate) or _OUR_WORDS.get(error.sqlstate[:2], "the database refused")
        if error.sqlstate in _POOLER_CODES:
            words = _POOLER_WORDS
        return f"{error.sqlstate} {name}: {words}"
    if isinstance(error, PoolerError):
        return f"{name}: {PoolerError.WORDS}"
    return name


def is_database_fault(error: BaseException) -> bool:
    """Whether an error comes from the database or the way to it, rather than from a mistake in this program."""
    return isinstance(
        error,
        asyncpg.PostgresError
        | asyncpg.InterfaceError
        | asyncpg.InternalClientError
        | OSError
        | TimeoutError
        | PoolerError,
    )
