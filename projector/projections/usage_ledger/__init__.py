"""The usage ledger: debits and credits of budgets."""

from projector.registry import Projection, Table
from projector.sqlfile import load_sql

PROJECTION = Projection(
    name="usage_ledger",
    source_type="usage_ledger",
    reason="budget_posting_projection",
    tables=(Table(dataset="budget_postings", name="fact_budget_posting"),),
    project=load_sql(__file__, "project.sql"),
    remove=load_sql(__file__, "remove.sql"),
    missing=load_sql(__file__, "missing.sql"),
)
