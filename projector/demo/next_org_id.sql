-- The first org id that is free above all others.
SELECT coalesce(max(org_id), 0) + 1 FROM organizations;
