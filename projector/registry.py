"""The projections there are: everything that works on facts works from this registry."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

ENTRY_POINT_GROUP = "reporting_projector.projections"


class RegistryError(Exception):
    """The projections contradict each other."""


@dataclass(frozen=True, slots=True)
class Table:
    """A fact table and the public name of its facts."""

    dataset: str
    name: str


@dataclass(frozen=True, slots=True)
class Projection:
    """How the sources of one type become facts.

    Attributes:
        name: short, unique, used in logs.
        source_type: `reporting_outbox.source_type` of its rows.
        reason: `reporting_outbox.reason` of its rows.
        tables: the fact tables it feeds.
        project: the statement that upserts and removes facts. Takes `$1 bigint[]` org ids and `$2 text[]` source ids in
            pairs, `$3 boolean` overwrite; gives rows (outcome, name, count, org_id, source_id). Its first pass inserts
            what is not there, locks what is, and names the sources of the latter as `existing`; its second pass
            overwrites these. Sources that are not there are named as `gone`; `written` and `skipped` rows count.
        remove: the statement that removes all facts of sources that are gone. Takes `$1` and `$2` as above; gives
            rows (name, count).
        missing: the statement that looks at the next slice of sources, in an order that is its own, and tells which of
            them lack a fact. Takes `$1 text` the key to go on after (empty: from the start), `$2 bigint` an org or
            null, `$3` and `$4 timestamptz` a range of created_at or nulls, `$5 text` missing, stale or all, `$6
            integer` how many sources; gives rows (org_id, source_id, created_at, version) to enqueue, then one without
            org_id: the slice's last key as source_id, null where the slice is empty, and its size as version.
        versioned: whether sources change and their outbox rows tell versions; a backfill then enqueues the newest
            version that the outbox has, else the one that `missing` gives.
    """

    name: str
    source_type: str
    reason: str
    tables: tuple[Table, ...]
    project: str
    remove: str
    missing: str
    versioned: bool = False


class Registry:
    """Projections by source type, in a fixed order: all workers lock facts in it."""

    def __init__(self, projections: Iterable[Projection]) -> None:
        ordered = list(projections)
        by_type = {projection.source_type: projection for projection in ordered}
        if len(by_type) != len(ordered):
            raise RegistryError("two projections claim the same source type")
        self._by_type: Mapping[str, Projection] = MappingProxyType(by_type)

    def __iter__(self) -> Iterator[Projection]:
        return iter(self._by_type.values())

    def get(self, source_type: str) -> Projection | None:
        """The projection of a source type, or None where there is none."""
        return self._by_type.get(source_type)

    @property
    def tables(self) -> tuple[Table, ...]:
        """All fact tables, each once, in the order of the projections."""
        return tuple(dict.fromkeys(table for projection in self._by_type.values() for table in projection.tables))
