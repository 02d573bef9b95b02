-- One row of each repository, whatever number of mirrors has it, and what belongs to it.
--
-- Read: lake_repositories, lake_refs, lake_users, lake_members, lake_followers, lake_projects, lake_changes,
-- lake_listings and lake_instances: the files that the manifests of all mirrors name, with the column mirror of their
-- folders, and ID/NUMBER where the column upstream has a number. Made: merged_repositories, merged_refs and so on. The
-- statements are those of DuckDB, of Spark and of Trino (where CREATE VIEW stands for CREATE OR REPLACE TEMPORARY VIEW).

CREATE OR REPLACE TEMPORARY VIEW held_listings AS
SELECT mirror, instance, owner_uuid, seen_since
FROM (
    SELECT mirror, instance, owner_uuid, seen_since,
        row_number() OVER (PARTITION BY mirror, instance, owner_uuid ORDER BY seq DESC) AS place
    FROM lake_listings
) l
WHERE place = 1;

-- Rows of older versions do not have hidden_until. Then all until the last look at the refs counts as hidden.
CREATE OR REPLACE TEMPORARY VIEW made_public AS
SELECT c.mirror, c.instance, c.repository_uuid AS uuid, max(c.at) AS made_public_at
FROM lake_changes c
WHERE c.kind = 'made_public'
GROUP BY c.mirror, c.instance, c.repository_uuid;

-- How each mirror has each repository: its row of the highest seq. A living repository was seen when all of its owner
-- were seen at the latest, also where its row was exported long ago.
CREATE OR REPLACE TEMPORARY VIEW held_repositories AS
SELECT h.mirror, h.instance, h.uuid, h.seq, h.is_private, h.first_seen_at, h.refs_listed_at, h.refs_hidden,
    p.made_public_at, h.deleted_at IS NOT NULL AS gone,
    CASE WHEN h.deleted_at IS NULL AND l.seen_since > h.last_seen_at THEN l.seen_since
        ELSE h.last_seen_at END AS listed_at,
    CASE WHEN h.hidden_until IS NOT NULL THEN h.hidden_until
        WHEN h.refs_listed_at > p.made_public_at THEN h.refs_listed_at ELSE p.made_public_at END AS hidden_until
FROM (
    SELECT mirror, instance, uuid, seq, owner_uuid, is_private, first_seen_at, last_seen_at, refs_listed_at,
        refs_hidden, hidden_until, deleted_at,
        row_number() OVER (PARTITION BY mirror, instance, uuid ORDER BY seq DESC) AS place
    FROM lake_repositories
) h
LEFT JOIN held_listings l ON l.mirror = h.mirror AND l.instance = h.instance AND l.owner_uuid = h.owner_uuid
LEFT JOIN made_public p ON p.mirror = h.mirror AND p.instance = h.instance AND p.uuid = h.uuid
WHERE h.place = 1;

-- What all mirrors together say of a repository. Its row is that of the mirror which listed it last. It is gone only if
-- every mirror that holds it says so, and private if any says so. All its refs are those of the mirror that read them
-- last: row by row, refs that were deleted would come back. They are hidden if any mirror saw later that the repository
-- was made public: until then it may have been private.
CREATE OR REPLACE TEMPORARY VIEW verdicts AS
SELECT instance, uuid,
    max(CASE WHEN row_rank = 1 THEN mirror END) AS row_mirror,
    max(CASE WHEN row_rank = 1 THEN seq END) AS row_seq,
    max(CASE WHEN refs_rank = 1 THEN mirror END) AS refs_mirror,
    max(CASE WHEN refs_rank = 1 THEN seq END) AS refs_seq,
    max(CASE WHEN refs_rank = 1 AND refs_hidden THEN 1 ELSE 0 END) = 1
        OR coalesce(max(refs_listed_at) < max(made_public_at), false) AS refs_hidden,
    max(CASE WHEN is_private THEN 1 ELSE 0 END) = 1 AS is_private,
    min(CASE WHEN gone THEN 1 ELSE 0 END) = 1 AS gone,
    min(first_seen_at) AS first_seen_at,
    max(listed_at) AS last_seen_at,
    max(refs_listed_at) AS refs_listed_at,
    max(hidden_until) AS hidden_until,
    array_sort(array_agg(mirror)) AS seen_by,
    CASE WHEN max(CASE WHEN gone THEN 1 ELSE 0 END) = 1
        THEN array_sort(array_agg(mirror) FILTER (WHERE gone)) END AS gone_by
FROM (
    SELECT h.*,
        row_number() OVER (PARTITION BY instance, uuid ORDER BY listed_at DESC, mirror) AS row_rank,
        row_number() OVER (PARTITION BY instance, uuid ORDER BY refs_listed_at DESC NULLS LAST, mirror) AS refs_rank
    FROM held_repositories h
) ranked
GROUP BY instance, uuid;

CREATE OR REPLACE TEMPORARY VIEW merged_repositories AS
SELECT v.instance, v.uuid, r.owner_uuid, r.slug, r.name, r.full_name, r.scm, v.is_private, v.gone,
    r.description, r.website, r.language, r.size, r.main_branch, r.fork_policy, r.parent_uuid, r.parent_full_name,
    r.followers_count, r.forks_count, r.has_issues, r.has_wiki, r.project_key, r.project_name, r.project_uuid,
    r.avatar_url, r.clone_https, r.clone_ssh, r.created_at, r.updated_at, r.archived,
    v.first_seen_at, v.last_seen_at, v.refs_listed_at, v.refs_hidden, v.hidden_until,
    CASE WHEN v.gone THEN r.deleted_at END AS deleted_at,
    CASE WHEN v.gone THEN r.gone_reason END AS gone_reason,
    v.seen_by, v.gone_by
FROM verdicts v
JOIN lake_repositories r
    ON r.mirror = v.row_mirror AND r.instance = v.instance AND r.uuid = v.uuid AND r.seq = v.row_seq;

CREATE OR REPLACE TEMPORARY VIEW merged_refs AS
SELECT t.instance, t.repository_uuid, t.kind, t.name, t.target_hash, t.target_date, t.target_author,
    t.target_author_name, t.target_author_uuid, t.target_message, t.target_parents, t.heads, t.tagger, t.message, t.date
FROM verdicts v
JOIN lake_refs t
    ON t.mirror = v.refs_mirror AND t.instance = v.instance AND t.repository_uuid = v.uuid AND t.seq = v.refs_seq;

CREATE OR REPLACE TEMPORARY VIEW merged_followers AS
SELECT f.instance, f.repository_uuid, f.user_uuid
FROM verdicts v
JOIN lake_followers f
    ON f.mirror = v.row_mirror AND f.instance = v.instance AND f.repository_uuid = v.uuid AND f.seq = v.row_seq;

CREATE OR REPLACE TEMPORARY VIEW held_users AS
SELECT * FROM (
    SELECT u.*, row_number() OVER (PARTITION BY mirror, instance, uuid ORDER BY seq DESC) AS place FROM lake_users u
) h
WHERE place = 1;

-- The row of the mirror which saw the account last; gone only if all say so. Those that know it as an owner come first:
-- elsewhere its name may be a nickname, from the members of another workspace.
CREATE OR REPLACE TEMPORARY VIEW merged_users AS
SELECT instance, uuid, username, display_name, first_name, last_name, nickname, account_id, kind,
    owns = 1 AS is_owner, avatar_url, created_at, first_seen AS first_seen_at, last_seen_at, gone = 1 AS gone,
    CASE WHEN gone = 1 THEN deleted_at END AS deleted_at, CASE WHEN gone = 1 THEN gone_reason END AS gone_reason
FROM (
    SELECT h.*,
        max(CASE WHEN is_owner THEN 1 ELSE 0 END) OVER (PARTITION BY instance, uuid) AS owns,
        min(CASE WHEN deleted_at IS NULL THEN 0 ELSE 1 END) OVER (PARTITION BY instance, uuid) AS gone,
        min(first_seen_at) OVER (PARTITION BY instance, uuid) AS first_seen,
        row_number() OVER (PARTITION BY instance, uuid
            ORDER BY CASE WHEN is_owner THEN 0 ELSE 1 END, last_seen_at DESC, mirror) AS row_rank
    FROM held_users h
) ranked
WHERE row_rank = 1;

-- The members of a workspace are those of the mirror that read any of them last.
CREATE OR REPLACE TEMPORARY VIEW held_members AS
SELECT m.mirror, m.instance, m.workspace_uuid, m.user_uuid, m.permission, m.last_seen_at,
    max(m.last_seen_at) OVER (PARTITION BY m.mirror, m.instance, m.workspace_uuid) AS read_at
FROM lake_members m
JOIN held_users h
    ON h.mirror = m.mirror AND h.instance = m.instance AND h.uuid = m.workspace_uuid AND h.seq = m.seq;

CREATE OR REPLACE TEMPORARY VIEW merged_members AS
SELECT instance, workspace_uuid, user_uuid, permission, last_seen_at
FROM (
    SELECT m.*, dense_rank() OVER (PARTITION BY instance, workspace_uuid ORDER BY read_at DESC, mirror) AS mirror_rank
    FROM held_members m
) ranked
WHERE mirror_rank = 1;

-- The row of the mirror which saw the project last; private if any says so.
CREATE OR REPLACE TEMPORARY VIEW merged_projects AS
SELECT instance, uuid, owner_uuid, key, name, description,
    CASE WHEN private = 1 THEN true WHEN private = 0 THEN false END AS is_private,
    avatar_url, first_seen AS first_seen_at, last_seen_at
FROM (
    SELECT h.*,
        max(CASE WHEN is_private THEN 1 WHEN NOT is_private THEN 0 END) OVER (PARTITION BY instance, uuid) AS private,
        min(first_seen_at) OVER (PARTITION BY instance, uuid) AS first_seen,
        row_number() OVER (PARTITION BY instance, uuid ORDER BY last_seen_at DESC, mirror) AS row_rank
    FROM (
        SELECT p.*, row_number() OVER (PARTITION BY mirror, instance, uuid ORDER BY seq DESC) AS place
        FROM lake_projects p
    ) h
    WHERE place = 1
) ranked
WHERE row_rank = 1;

-- Mirrors see one change at different moments. Equal changes, each within a day of the one before, are a stretch. The
-- n-th of a stretch that one mirror saw is the n-th that the others saw, and is there once, as it was seen first. What
-- one mirror saw twice happened twice.
CREATE OR REPLACE TEMPORARY VIEW merged_changes AS
SELECT n.instance, min(n.at) AS at, n.kind, n.repository_uuid, n.user_uuid, n.ref, n.old, n.new
FROM (
    SELECT s.*,
        row_number() OVER (PARTITION BY s.instance, s.repository_uuid, s.user_uuid, s.kind, s.ref, s.old, s.new,
            s.stretch, s.mirror ORDER BY s.at) AS number
    FROM (
        SELECT e.*,
            sum(CASE WHEN e.at <= e.at_before + INTERVAL '1' DAY THEN 0 ELSE 1 END)
                OVER (PARTITION BY e.instance, e.repository_uuid, e.user_uuid, e.kind, e.ref, e.old, e.new
                    ORDER BY e.at, e.mirror ROWS UNBOUNDED PRECEDING) AS stretch
        FROM (
            SELECT c.*,
                lag(c.at) OVER (PARTITION BY c.instance, c.repository_uuid, c.user_uuid, c.kind, c.ref, c.old, c.new
                    ORDER BY c.at, c.mirror) AS at_before
            FROM lake_changes c
        ) e
    ) s
) n
GROUP BY n.instance, n.kind, n.repository_uuid, n.user_uuid, n.ref, n.old, n.new, n.stretch, n.number;

CREATE OR REPLACE TEMPORARY VIEW merged_instances AS
SELECT instance, min(kind) AS kind, min(url) AS url, min(refs) AS refs FROM lake_instances GROUP BY instance;
