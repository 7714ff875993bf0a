-- How many generations of an org have a fact. Takes $1 bigint org. Plan: an index that begins with the org.
SELECT count(*) FROM fact_llm_generation WHERE org_id = $1
