-- Questions over a merged lake, in the SQL of DuckDB, Spark and Trino. The tables repositories, refs and changes are
-- the folders of that name below OUT.

-- Names under many owners.
SELECT lower(slug) AS name, count(DISTINCT owner_uuid) AS owners, count(*) AS repositories
FROM repositories
WHERE NOT gone
GROUP BY lower(slug)
HAVING count(DISTINCT owner_uuid) > 1
ORDER BY owners DESC, name
LIMIT 100;

-- Stale repositories: nothing was updated for years.
SELECT instance, full_name, CAST(updated_at AS DATE) AS updated_on
FROM repositories
WHERE NOT gone AND updated_at < CURRENT_DATE - INTERVAL '1000' DAY
ORDER BY updated_at, instance, full_name
LIMIT 100;

-- Tags that moved, which releases should not.
SELECT r.instance, r.full_name, c.ref, count(*) AS moves, CAST(max(c.at) AS DATE) AS last_moved_on
FROM changes c
JOIN repositories r ON r.instance = c.instance AND r.uuid = c.repository_uuid
WHERE c.kind = 'tag_moved' AND NOT r.gone
GROUP BY r.instance, r.full_name, c.ref
ORDER BY moves DESC, r.full_name, c.ref
LIMIT 100;
