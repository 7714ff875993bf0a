"""Whose fault an error is, and how it is told (design: promises 5, 9)."""

import ssl

import asyncpg
import pytest
from asyncpg import exceptions

from projector.errors import ErrorKind, PoolerError, classify, describe, is_database_fault

ROW, BROKEN, CONTENDED, TRANSIENT = ErrorKind.ROW, ErrorKind.BROKEN, ErrorKind.CONTENDED, ErrorKind.TRANSIENT
CANARY = "canary_3b1f"

OF_THE_DATABASE: list[tuple[type[asyncpg.PostgresError], ErrorKind]] = [
    # A row's own data.
    (exceptions.UniqueViolationError, ROW),
    (exceptions.ForeignKeyViolationError, ROW),
    (exceptions.NotNullViolationError, ROW),
    (exceptions.CheckViolationError, ROW),
    (exceptions.ExclusionViolationError, ROW),
    (exceptions.NumericValueOutOfRangeError, ROW),
    (exceptions.InvalidTextRepresentationError, ROW),
    (exceptions.DatetimeFieldOverflowError, ROW),
    (exceptions.StringDataRightTruncationError, ROW),
    (exceptions.UntranslatableCharacterError, ROW),
    (exceptions.InvalidJsonTextError, ROW),
    (exceptions.DivisionByZeroError, ROW),
    (exceptions.CardinalityViolationError, ROW),
    (exceptions.TriggeredDataChangeViolationError, ROW),
    (exceptions.WithCheckOptionViolationError, ROW),
    (exceptions.ProgramLimitExceededError, ROW),
    (exceptions.RaiseError, ROW),
    (exceptions.AssertError, ROW),
    # A projection that does not fit the schema or its grants.
    (exceptions.UndefinedColumnError, BROKEN),
    (exceptions.UndefinedTableError, BROKEN),
    (exceptions.UndefinedFunctionError, BROKEN),
    (exceptions.AmbiguousColumnError, BROKEN),
    (exceptions.PostgresSyntaxError, BROKEN),
    (exceptions.DatatypeMismatchError, BROKEN),
    (exceptions.CannotCoerceError, BROKEN),
    (exceptions.InvalidColumnReferenceError, BROKEN),
    (exceptions.InsufficientPrivilegeError, BROKEN),
    (exceptions.FeatureNotSupportedError, BROKEN),
    (exceptions.InvalidSchemaNameError, BROKEN),
    # Something in some row's way.
    (exceptions.DeadlockDetectedError, CONTENDED),
    (exceptions.SerializationError, CONTENDED),
    (exceptions.LockNotAvailableError, CONTENDED),
    (exceptions.QueryCanceledError, CONTENDED),
    (exceptions.ObjectInUseError, CONTENDED),
    (exceptions.InternalServerError, CONTENDED),
    (exceptions.DataCorruptedError, CONTENDED),
    (exceptions.IndexCorruptedError, CONTENDED),
    # The moment.
    (exceptions.AdminShutdownError, TRANSIENT),
    (exceptions.CrashShutdownError, TRANSIENT),
    (exceptions.CannotConnectNowError, TRANSIENT),
    (exceptions.IdleInTransactionSessionTimeoutError, TRANSIENT),
    (exceptions.PostgresConnectionError, TRANSIENT),
    (exceptions.ConnectionDoesNotExistError, TRANSIENT),
    (exceptions.ConnectionFailureError, TRANSIENT),
    (exceptions.TooManyConnectionsError, TRANSIENT),
    (exceptions.DiskFullError, TRANSIENT),
    (exceptions.OutOfMemoryError, TRANSIENT),
    (exceptions.PostgresIOError, TRANSIENT),
    (exceptions.ReadOnlySQLTransactionError, TRANSIENT),
    (exceptions.InvalidPasswordError, TRANSIENT),
    (exceptions.InvalidAuthorizationSpecificationError, TRANSIENT),
    (exceptions.InvalidCachedStatementError, TRANSIENT),
    (exceptions.InvalidSQLStatementNameError, TRANSIENT),
    (exceptions.DuplicatePreparedStatementError, TRANSIENT),
]

OF_THE_WAY: list[BaseException] = [
    exceptions.InterfaceError("connection is closed"),
    exceptions.InternalClientError("got result for unknown protocol state"),
    exceptions.OutdatedSchemaCacheError("schema has changed"),
    exceptions.TargetServerAttributeNotMatched("no primary"),
    OSError("host is unreachable"),
    ConnectionResetError("reset by peer"),
    ssl.SSLError("handshake"),
    TimeoutError(),
    PoolerError(),
]


def ids(errors: list[tuple[type[asyncpg.PostgresError], ErrorKind]]) -> list[str]:
    return [error.__name__ for error, _ in errors]


@pytest.mark.parametrize(("error", "kind"), OF_THE_DATABASE, ids=ids(OF_THE_DATABASE))
def test_an_error_of_the_database_is_held_against_whom_it_is_due(
    error: type[asyncpg.PostgresError], kind: ErrorKind
) -> None:
    assert classify(error("text")) is kind
    assert is_database_fault(error("text"))


def test_a_read_only_server_is_told_as_such() -> None:
    error = exceptions.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction")
    assert describe(error) == "25006 ReadOnlySQLTransactionError: the server is read-only, as a standby is"


@pytest.mark.parametrize("error", OF_THE_WAY, ids=[type(error).__name__ for error in OF_THE_WAY])
def test_an_error_on_the_way_to_the_database_is_nobodys_attempt(error: BaseException) -> None:
    assert classify(error) is TRANSIENT
    assert is_database_fault(error)


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError("x"), AssertionError()])
def test_a_mistake_of_the_program_is_no_fault_of_the_database(error: BaseException) -> None:
    assert not is_database_fault(error)
    assert classify(error) is not ROW


def state(sqlstate: str) -> asyncpg.PostgresError:
    """An error as the driver makes it of a SQLSTATE that it may not know."""
    error = asyncpg.PostgresError.new({"C": sqlstate, "M": CANARY, "S": "ERROR"})
    assert isinstance(error, asyncpg.PostgresError)
    assert error.sqlstate == sqlstate
    return error


@pytest.mark.parametrize("sqlstate", ["ZZ001", "MY123", "P0999", "22ZZZ", "K0000"])
def test_a_state_that_somebodys_trigger_made_up_is_the_rows_own(sqlstate: str) -> None:
    assert classify(state(sqlstate)) is ROW


@pytest.mark.parametrize("sqlstate", ["08ZZZ", "53ZZZ", "57ZZZ", "58ZZZ"])
def test_an_unknown_state_of_a_transient_class_is_nobodys_attempt(sqlstate: str) -> None:
    assert classify(state(sqlstate)) is TRANSIENT


def test_an_error_without_a_state_is_nobodys_attempt() -> None:
    assert classify(asyncpg.PostgresError("text")) is TRANSIENT


def test_an_error_is_told_by_state_class_and_our_own_words() -> None:
    error = exceptions.NumericValueOutOfRangeError(f'value "{CANARY}" is out of range')
    assert describe(error) == "22003 NumericValueOutOfRangeError: a value does not fit"


@pytest.mark.parametrize("error", [*(error(CANARY) for error, _ in OF_THE_DATABASE), *OF_THE_WAY], ids=repr)
def test_no_text_of_an_error_is_told(error: BaseException) -> None:
    error.args = (CANARY, *error.args)
    for field in ("detail", "hint", "message", "context", "query", "internal_query", "table_name", "column_name"):
        if isinstance(error, asyncpg.PostgresError):
            setattr(error, field, CANARY)
    told = describe(error)
    assert CANARY not in told
    assert type(error).__name__ in told
    assert len(told) <= 200


@pytest.mark.parametrize("name", ["some_check", "canary_3b1f", "ann@example.org", "line\nbreak"])
def test_a_constraints_name_is_not_told_for_a_trigger_can_make_it_up(name: str) -> None:
    error = exceptions.CheckViolationError("text")
    error.constraint_name = name
    assert name not in describe(error).split()
    assert describe(error).startswith("23514 CheckViolationError: a constraint of the fact table refused the fact")


def test_an_unknown_state_is_told_though_its_words_are_not() -> None:
    assert describe(state("ZZ001")).startswith("ZZ001 ")
    assert CANARY not in describe(state("ZZ001"))


def test_a_missing_grant_says_what_to_run() -> None:
    assert "deploy/sql/roles.sql" in describe(asyncpg.InsufficientPrivilegeError("permission denied for table canary"))
