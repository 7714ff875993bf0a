"""Events: tool calls, turns, usage of capabilities."""

from projector.registry import Projection, Table
from projector.sqlfile import load_sql

PROJECTION = Projection(
    name="event",
    source_type="event",
    reason="event_projection",
    tables=(
        Table(dataset="tool_calls", name="fact_tool_call"),
        Table(dataset="turns", name="fact_turn"),
        Table(dataset="capability_usage", name="fact_capability_usage"),
    ),
    project=load_sql(__file__, "project.sql"),
    remove=load_sql(__file__, "remove.sql"),
    missing=load_sql(__file__, "missing.sql"),
)
