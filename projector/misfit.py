"""Whether a projection fits the database: its statements, tried without a source, tell."""

import re

import asyncpg

from projector.database import Savepoint
from projector.errors import ErrorKind, classify, describe
from projector.registry import Projection
from projector.settings import OnSourceGone

_LONGEST_QUOTE = 100

_WHAT_IS_WRONG = {
    "42501": "a grant is missing, the server's log names the table",
    "42703": "a column is missing",
    "42P01": "a table is missing",
    "42P10": "a fact table's unique index is missing",
    "42804": "a column has another type than the projection expects",
    "42846": "a column has another type than the projection expects",
    "42883": "a column has another type than the projection expects, or `projector migrate` has not run",
}
_WHAT_TO_DO = "its rows are put off and lose no attempt, until tables and grants are what this version expects"


async def find_misfit(savepoint: Savepoint, projection: Projection, on_source_gone: OnSourceGone) -> str:
    """Tells what is wrong and what to do, for an operator, where a projection fails for any row; else an empty text.

    A statement that does not fit the schema or its grants fails without a source too; what refuses some row, such as a
    trigger or a policy, does not. Runs inside a transaction, which stays usable.

    Raises:
        Exception: it cannot be told now, as something of the moment is in the way.
    """
    statements: dict[str, tuple[object, ...]] = {projection.project: ([], [], False)}
    if on_source_gone is OnSourceGone.REMOVE:
        statements[projection.remove] = ([], [])
    for statement, arguments in statements.items():
        try:
            async with savepoint.undone_on_error():
                await savepoint.connection.fetch(statement, *arguments)
        except asyncpg.PostgresError as error:
            if classify(error) is not ErrorKind.BROKEN:
                raise
            return _explain(error, statement)
    return ""


def _explain(error: asyncpg.PostgresError, statement: str) -> str:
    """SQLSTATE, our own words, and what stands in our own statement where the server stopped; no text of the server."""
    words = _WHAT_IS_WRONG.get(error.sqlstate or "")
    what = f"{error.sqlstate} {type(error).__name__}: {words}" if words else describe(error)
    # Absent where it stopped within a function.
    position = getattr(error, "position", None)
    where = f" ({_quote(statement, int(position) - 1)})" if position else ""
    return f"{what}{where}; {_WHAT_TO_DO}"


def _quote(statement: str, at: int) -> str:
    """The name that begins there, else the line."""
    name = re.compile(r"\w+(\.\w+)?").match(statement, at)
    if name and (name.group(1) or statement[:at].rstrip().upper().endswith(("FROM", "JOIN", "INTO"))):
        return name.group()
    line = statement[statement.rfind("\n", 0, at) + 1 :].partition("\n")[0]
    return f"near: {line.strip()[:_LONGEST_QUOTE]}"
