-- How many facts there are, in all tables.
SELECT
    (SELECT count(*) FROM fact_tool_call) + (SELECT count(*) FROM fact_turn) + (SELECT count(*) FROM fact_session)
    + (SELECT count(*) FROM fact_llm_generation) + (SELECT count(*) FROM fact_budget_posting)
    + (SELECT count(*) FROM fact_capability_usage)
