-- Which of these facts are there. Takes $1 text[] keys of generations. Plan: the key, for each org that has facts.
SELECT f.source_key
FROM organizations AS o
CROSS JOIN unnest($1::text[]) AS wanted (source_key)
JOIN fact_llm_generation AS f ON f.org_id = o.org_id AND f.source_key = wanted.source_key
