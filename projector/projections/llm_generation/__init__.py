"""LLM generations: tokens and durations."""

from projector.registry import Projection, Table
from projector.sqlfile import load_sql

PROJECTION = Projection(
    name="llm_generation",
    source_type="llm_generation",
    reason="llm_generation_projection",
    tables=(Table(dataset="llm_generations", name="fact_llm_generation"),),
    project=load_sql(__file__, "project.sql"),
    remove=load_sql(__file__, "remove.sql"),
    missing=load_sql(__file__, "missing.sql"),
)
