"""Sessions: their latest state, and the capabilities configured for them."""

from projector.registry import Projection, Table
from projector.sqlfile import load_sql

PROJECTION = Projection(
    name="session",
    source_type="session",
    reason="session_snapshot",
    tables=(
        Table(dataset="sessions", name="fact_session"),
        Table(dataset="capability_usage", name="fact_capability_usage"),
    ),
    project=load_sql(__file__, "project.sql"),
    remove=load_sql(__file__, "remove.sql"),
    missing=load_sql(__file__, "missing.sql"),
    versioned=True,
)
