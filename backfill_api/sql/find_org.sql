-- Finds an org by its public id, in lower case. Takes $1 text. Plan: the unique index on organizations.public_id.
-- Ids are written in lower case by the platform; one in upper case is found as well.
SELECT org_id FROM organizations WHERE public_id IN ($1, 'org_' || upper(substr($1, 5))) LIMIT 1
