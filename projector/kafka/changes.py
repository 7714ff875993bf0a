"""The changelog's side of the database: who publishes, what is next, what it is now.

Versions: a process that holds the lease reads the changes and the facts, and only then draws a version, by a statement
that fails where another has taken the lease meanwhile. Who takes it reads later than that. So of two versions the
higher one stands for the later look at every fact, and a later look sees nothing older: changes need no order among
themselves, may be enqueued by anybody at any time, and may be published twice.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import asyncpg

from projector.database import Timeouts, acquire, transaction
from projector.kafka.publish import Message
from projector.sqlfile import load_sql
from schemas.facts import FACTS_SCHEMA_VERSION

ACQUIRE = load_sql(__file__, "sql/acquire.sql")
RENEW = load_sql(__file__, "sql/renew.sql")
RELEASE = load_sql(__file__, "sql/release.sql")
TAKE = load_sql(__file__, "sql/take.sql")
FACTS = load_sql(__file__, "sql/facts.sql")
SETTLE = load_sql(__file__, "sql/settle.sql")

LEASE_SECONDS = 10.0
"""After how long without a sign of life another process may publish."""

MOST_FACTS = 8000
"""How many facts are taken at once: then no more changes are added."""

_RENEW_SECONDS = LEASE_SECONDS / 3
_MOST_CHANGES = 1000

# Changes that were committed late, or that another process had failed to publish, are found this far below the last
# look; and all others by a look from the bottom, this often, and never for more than a twentieth of the time.
_WINDOW = 1000
_BOTTOM_SECONDS = 10.0
_LARGEST_SHARE = 0.05

_SCHEMA_VERSION = ("schema_version", FACTS_SCHEMA_VERSION.encode())


@dataclass(frozen=True, slots=True)
class FactNow:
    """A fact that was changed, as it is published: its message, or two of them where it is gone."""

    org_id: int
    source_key: str
    messages: tuple[Message, ...]

    @property
    def size(self) -> int:
        """Bytes of its largest message's key and value."""
        return max(len(message.key) + len(message.value or b"") for message in self.messages)


_Found = tuple[list[tuple[int, str]], list[asyncpg.Record]]
"""Org ids and source keys of facts, and for each of them what the table holds."""


@dataclass(slots=True)
class Taken:
    """What to publish next: facts by dataset, none where nothing waits; the changes that this settles.

    `fresh`: the lease was another's, or nobody's, until now.
    """

    fresh: bool
    seqs: list[int] = field(default_factory=list)
    facts: dict[str, list[FactNow]] = field(default_factory=dict)


@dataclass(slots=True)
class ChangeQueue:
    """Takes changes as long as this process holds the lease.

    Attributes:
        tables: the fact tables' names by dataset.
        clock: monotonic seconds.
        holder: what this process calls itself.
        renewed_at: when the lease was last taken or kept, by `clock`; it lasts for LEASE_SECONDS.
    """

    pool: asyncpg.Pool
    timeouts: Timeouts
    tables: Mapping[str, str]
    clock: Callable[[], float] = time.monotonic
    holder: UUID = field(default_factory=uuid4)
    renewed_at: float = float("-inf")
    _holding: bool = False
    _published: list[int] = field(default_factory=list)
    _cursor: int = 0
    _highest: int = 0
    _bottom_at: float = float("-inf")

    async def take(self, datasets: Iterable[str], most_facts: int) -> Taken | None:
        """Settles what was published and takes what is next; None where another process publishes.

        Args:
            datasets: those that can be published now; none: the lease alone is taken or kept.
            most_facts: about how many facts.

        Raises:
            Exception: a fault of the database. Nothing was taken.
        """
        if not self._holding:
            now = self.clock()
            async with _alone(self.pool) as connection:
                self._holding = bool(await connection.fetchval(ACQUIRE, self.holder, LEASE_SECONDS))
            self.renewed_at = now
            return Taken(fresh=True) if self._holding else None
        await self._settle()
        async with acquire(self.pool) as connection, transaction(connection, self.timeouts):
            records = await self._look(connection, list(datasets), most_facts)
            found = await self._read(connection, records)
        taken = Taken(fresh=False, seqs=[record["seq"] for record in records])
        now = self.clock()
        if records or now - self.renewed_at > _RENEW_SECONDS:
            async with _alone(self.pool) as connection:
                version = await connection.fetchval(RENEW, self.holder)
            if version is None:
                self._holding = False
                return None
            self.renewed_at = now
            taken.facts = {
                dataset: [FactNow(*pair, _messages(record, version)) for pair, record in zip(*both, strict=True)]
                for dataset, both in found.items()
            }
        return taken

    def published(self, taken: Taken) -> None:
        """Notes that what was taken is published; it is settled with the next take."""
        self._published += taken.seqs

    def failed(self) -> None:
        """Notes that what was taken last is not published: it is looked for again, from the bottom."""
        self._bottom_at = float("-inf")

    async def release(self) -> None:
        """Settles what was published, and lets others publish at once."""
        await self._settle()
        async with _alone(self.pool) as connection:
            await connection.execute(RELEASE, self.holder)
        self._holding = False

    async def _settle(self) -> None:
        # Whoever holds the lease by now: what was published may go.
        if self._published:
            async with _alone(self.pool) as connection:
                await connection.execute(SETTLE, self._published)
            self._published.clear()

    async def _look(self, connection: asyncpg.Connection, datasets: list[str], most: int) -> list[asyncpg.Record]:
        started = self.clock()
        from_bottom = started >= self._bottom_at
        after = 0 if from_bottom else max(self._cursor - _WINDOW, 0)
        records = await connection.fetch(TAKE, after, datasets, _MOST_CHANGES, most) if datasets else []
        if from_bottom:
            now = self.clock()
            self._bottom_at = now + max(_BOTTOM_SECONDS, (now - started) / _LARGEST_SHARE)
        if records:
            # From here on, upwards: what lies low may be more than fits.
            self._cursor = records[-1]["seq"]
            self._highest = max(self._highest, self._cursor)
        else:
            self._cursor = self._highest
        return records

    async def _read(self, connection: asyncpg.Connection, changes: list[asyncpg.Record]) -> dict[str, _Found]:
        """The facts that changes are about, each once, as they are now."""
        pairs: dict[str, dict[tuple[int, str], None]] = {}
        for change in changes:
            changed = zip(change["org_ids"], change["source_keys"], strict=True)
            pairs.setdefault(change["dataset"], {}).update(dict.fromkeys(changed))
        if pairs:
            await connection.execute("SET LOCAL TimeZone = 'UTC'; SET LOCAL extra_float_digits = 1")
        found = {}
        for dataset, some in pairs.items():
            org_ids, source_keys = zip(*some, strict=True)
            records = await connection.fetch(FACTS.format(table=self.tables[dataset]), org_ids, source_keys)
            found[dataset] = (list(some), records)
        return found


@asynccontextmanager
async def _alone(pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    """A connection for one statement that is its own transaction."""
    async with acquire(pool) as connection:
        try:
            yield connection
        except asyncpg.ReadOnlySQLTransactionError:
            connection.terminate()  # after a failover its address leads to another server
            raise


def _messages(record: asyncpg.Record, version: int) -> tuple[Message, ...]:
    key, fact, at = record["key"], record["fact"], record["projected_at"]
    encoded = key.encode()
    headers = (("version", b"%d" % version), ("projected_at", at.encode()), _SCHEMA_VERSION)
    if fact is not None:
        return (Message(encoded, f'{fact[:-1]},"version":{version},"removed":false}}'.encode(), headers),)
    # Engines that load topics as tables cannot read tombstones; compaction needs them.
    told = f'{key[:-1]},"removed":true,"version":{version},"projected_at":"{at}"}}'
    return (Message(encoded, told.encode(), headers), Message(encoded, None, headers))
