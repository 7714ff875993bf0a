"""The projections of the contract (facts.md), one folder each. A new one is a folder and a line below."""

from importlib.metadata import entry_points

from projector.projections import event, llm_generation, session, usage_ledger
from projector.registry import ENTRY_POINT_GROUP, Projection, Registry, RegistryError

BUILT_IN: tuple[Projection, ...] = (
    event.PROJECTION,
    session.PROJECTION,
    llm_generation.PROJECTION,
    usage_ledger.PROJECTION,
)


def load_registry() -> Registry:
    """The built-in projections and those that installed packages add through the entry point.

    Raises:
        RegistryError: an entry point is no `Projection`, or claims a source type that is taken.
    """
    added = []
    for entry_point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry_point: entry_point.name):
        projection = entry_point.load()
        if not isinstance(projection, Projection):
            raise RegistryError(f"entry point {entry_point.name!r} ({entry_point.value}) is no Projection")
        added.append(projection)
    return Registry((*BUILT_IN, *added))
