"""What is mirrored: upstreams, accounts, projects, repositories and refs, and the views of them."""

from sqlite_utils import Database


def m001_mirrored_things(db: Database) -> None:
    """Upstreams, owners, members, repositories and refs."""
    for statement in (
        """CREATE TABLE upstreams (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            url TEXT NOT NULL
        )""",
        """CREATE TABLE users (
            id INTEGER PRIMARY KEY,
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            uuid TEXT NOT NULL,
            username TEXT,
            display_name TEXT,
            first_name TEXT,
            last_name TEXT,
            nickname TEXT,
            account_id TEXT,
            kind TEXT NOT NULL,
            is_owner INTEGER NOT NULL DEFAULT 0,
            avatar_url TEXT,
            created_at TEXT,
            first_seen_at TEXT NOT NULL,
            last_seen_at TEXT NOT NULL,
            deleted_at TEXT,
            gone_reason TEXT,
            UNIQUE (upstream_id, uuid)
        )""",
        "CREATE INDEX users_username ON users (username COLLATE NOCASE)",
        """CREATE TABLE members (
            workspace_id INTEGER NOT NULL REFERENCES users(id),
            user_id INTEGER NOT NULL REFERENCES users(id),
            permission TEXT,
            last_seen_at TEXT NOT NULL,
            PRIMARY KEY (workspace_id, user_id)
        ) WITHOUT ROWID""",
        "CREATE INDEX members_user ON members (user_id)",
        """CREATE TABLE repositories (
            id INTEGER PRIMARY KEY,
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            uuid TEXT NOT NULL,
            owner_id INTEGER NOT NULL REFERENCES users(id),
            slug TEXT NOT NULL,
            name TEXT NOT NULL,
            full_name TEXT NOT NULL,
            scm TEXT,
            is_private INTEGER NOT NULL,
            description TEXT,
            website TEXT,
            language TEXT,
            size INTEGER,
            main_branch TEXT,
            fork_policy TEXT,
            parent_id INTEGER REFERENCES repositories(id),
            parent_uuid TEXT,
            parent_full_name TEXT,
            followers_count INTEGER,
            forks_count INTEGER,
            has_issues INTEGER,
            has_wiki INTEGER,
            project_key TEXT,
            project_name TEXT,
            project_uuid TEXT,
            avatar_url TEXT,
            clone_https TEXT,
            clone_ssh TEXT,
            created_at TEXT,
            updated_at TEXT,
            first_seen_at TEXT NOT NULL,
            last_seen_at TEXT NOT NULL,
            refs_synced_at TEXT,
            refs_stale INTEGER NOT NULL DEFAULT 1,
            deleted_at TEXT,
            gone_reason TEXT,
            UNIQUE (upstream_id, uuid)
        )""",
        "CREATE INDEX repositories_full_name ON repositories (full_name COLLATE NOCASE)",
        "CREATE INDEX repositories_owner ON repositories (owner_id, created_at)",
        "CREATE INDEX repositories_parent ON repositories (parent_id) WHERE parent_id IS NOT NULL",
        """CREATE INDEX repositories_orphan ON repositories (upstream_id, parent_uuid)
            WHERE parent_id IS NULL AND parent_uuid IS NOT NULL""",
        "CREATE INDEX repositories_refs_stale ON repositories (upstream_id) WHERE refs_stale",
        f"CREATE TABLE branches ({_TARGET}, heads TEXT, PRIMARY KEY (repository_id, name)) WITHOUT ROWID",
        f"""CREATE TABLE tags ({_TARGET}, tagger TEXT, message TEXT, date TEXT,
            PRIMARY KEY (repository_id, name)) WITHOUT ROWID""",
        "CREATE INDEX tags_name ON tags (name)",
        """CREATE TABLE followers (
            repository_id INTEGER NOT NULL REFERENCES repositories(id),
            user_id INTEGER NOT NULL REFERENCES users(id),
            PRIMARY KEY (repository_id, user_id)
        ) WITHOUT ROWID""",
    ):
        db.execute(statement)


_TARGET = """
            repository_id INTEGER NOT NULL REFERENCES repositories(id),
            name TEXT NOT NULL,
            target_hash TEXT NOT NULL,
            target_date TEXT,
            target_author TEXT,
            target_author_name TEXT,
            target_author_uuid TEXT,
            target_message TEXT,
            target_parents TEXT"""


def m003_views_for_people(db: Database) -> None:
    """Views that answer common questions."""
    db.create_view(
        "recent_changes",
        """SELECT c.id, c.at, c.kind, r.full_name AS repository, c.ref, c.old, c.new,
                  u.username AS owner, c.repository_id
           FROM changes c LEFT JOIN repositories r ON r.id = c.repository_id
           LEFT JOIN users u ON u.id = coalesce(c.user_id, r.owner_id)
           ORDER BY c.id DESC""",
    )
    db.create_view(
        "stale_repositories",
        """SELECT id, full_name, updated_at,
                  CAST(julianday('now') - julianday(updated_at) AS INTEGER) AS days,
                  scm, size, is_private, description
           FROM repositories
           WHERE deleted_at IS NULL AND updated_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 year')
           ORDER BY updated_at""",
    )
    db.create_view(
        "languages",
        """SELECT coalesce(nullif(lower(language), ''), '(not said)') AS language, count(*) AS repositories,
                  sum(size) AS bytes, max(updated_at) AS last_update
           FROM repositories WHERE deleted_at IS NULL
           GROUP BY 1 ORDER BY repositories DESC, language""",
    )
    db.create_view(
        "freshness",
        """SELECT u.name AS upstream, r.id AS repository_id, r.full_name,
                  r.last_seen_at, r.refs_synced_at, r.refs_stale,
                  strftime('%s', 'now') - strftime('%s', r.last_seen_at) AS seen_seconds_ago,
                  strftime('%s', 'now') - strftime('%s', r.refs_synced_at) AS refs_seconds_ago
           FROM repositories r JOIN upstreams u ON u.id = r.upstream_id
           WHERE r.deleted_at IS NULL""",
    )


def m007_orders_of_listings(db: Database) -> None:
    """The orders in which API 2.0 lists repositories, and indexes for counts without reading rows.

    They end with the columns of their conditions, so that SQLite skips or counts hidden rows in the index.
    The two orders cost a first load about a fifth of its speed, and 45 bytes a row each; the others cost
    nothing if nothing is private or gone.
    """
    for statement in (
        """CREATE INDEX repositories_created ON repositories (created_at, id, is_private, deleted_at)
            WHERE deleted_at IS NULL""",
        """CREATE INDEX repositories_owner_updated
            ON repositories (owner_id, updated_at, id, is_private, deleted_at) WHERE deleted_at IS NULL""",
        "CREATE INDEX repositories_gone ON repositories (owner_id, deleted_at) WHERE deleted_at IS NOT NULL",
        "DROP INDEX repositories_private",
        """CREATE INDEX repositories_private ON repositories (owner_id, is_private, deleted_at)
            WHERE is_private = 1""",
    ):
        db.execute(statement)


def m014_whatever_is_not_git(db: Database) -> None:
    """An index of repositories that are not git; empty on Bitbucket today, so filters by scm cost nothing."""
    db.execute("CREATE INDEX repositories_other_scm ON repositories (scm) WHERE scm IS NOT 'git'")


def m016_which_refs_were_read(db: Database) -> None:
    """How refs of each upstream are mirrored (api, git or none), and a view that says which were read.

    NULL means that no run of this version has written the file. If all living rows are marked as rows whose
    refs are not read, refs are not mirrored.
    """
    db.execute("ALTER TABLE upstreams ADD COLUMN refs TEXT")
    db.execute(
        """UPDATE upstreams SET refs = 'none'
           WHERE EXISTS (SELECT 1 FROM repositories WHERE upstream_id = upstreams.id)
               AND NOT EXISTS (SELECT 1 FROM repositories WHERE upstream_id = upstreams.id
                   AND (refs_synced_at IS NOT NULL OR (refs_stale AND deleted_at IS NULL)))"""
    )
    db.create_view(
        "freshness",
        """SELECT u.name AS upstream, r.id AS repository_id, r.full_name,
                  r.last_seen_at, r.refs_synced_at, r.refs_stale,
                  strftime('%s', 'now') - strftime('%s', r.last_seen_at) AS seen_seconds_ago,
                  strftime('%s', 'now') - strftime('%s', r.refs_synced_at) AS refs_seconds_ago,
                  CASE WHEN r.refs_synced_at IS NOT NULL THEN 'read' WHEN u.refs = 'none' THEN 'not mirrored'
                      ELSE 'not read yet' END AS refs
           FROM repositories r JOIN upstreams u ON u.id = r.upstream_id
           WHERE r.deleted_at IS NULL""",
        replace=True,
    )


def m019_authors_without_account(db: Database) -> None:
    """Delete names from author lines that API 1.0 sent without an account: they are no names of accounts."""
    for table in ("branches", "tags"):
        db.execute(
            f"""UPDATE {table} SET target_author_name = NULL
                WHERE target_author_uuid IS NULL AND (target_author_name = target_author
                    OR substr(target_author, 1, length(target_author_name) + 2) = target_author_name || ' <')
                AND repository_id IN (SELECT r.id FROM repositories r JOIN upstreams u ON u.id = r.upstream_id
                    WHERE u.kind = 'legacy')"""
        )


def m022_followers_by_user(db: Database) -> None:
    """An index of what a user follows, which decides whether a stranger may know the user."""
    db.execute("CREATE INDEX followers_user ON followers (user_id)")


def m023_archived(db: Database) -> None:
    """Whether a repository is archived, which Data Center reports since 8.0; NULL if unknown."""
    db.execute("ALTER TABLE repositories ADD COLUMN archived INTEGER")


def m024_projects(db: Database) -> None:
    """Projects as rows of their own; known ones are copied from the repositories."""
    for statement in (
        """CREATE TABLE projects (
            id INTEGER PRIMARY KEY,
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            owner_id INTEGER NOT NULL REFERENCES users(id),
            uuid TEXT NOT NULL,
            key TEXT NOT NULL,
            name TEXT,
            description TEXT,
            is_private INTEGER,
            avatar_url TEXT,
            first_seen_at TEXT NOT NULL,
            last_seen_at TEXT NOT NULL,
            UNIQUE (upstream_id, uuid)
        )""",
        "CREATE INDEX projects_owner ON projects (owner_id, key COLLATE NOCASE)",
        """INSERT OR IGNORE INTO projects
                (upstream_id, owner_id, uuid, key, name, first_seen_at, last_seen_at)
            SELECT r.upstream_id, r.owner_id, coalesce(r.project_uuid,
                    'name:' || lower(coalesce(u.username, u.uuid) || '/' || r.project_key)),
                r.project_key, r.project_name, min(r.first_seen_at), max(r.last_seen_at)
            FROM repositories r JOIN users u ON u.id = r.owner_id
            WHERE r.project_key IS NOT NULL AND r.deleted_at IS NULL
            GROUP BY r.upstream_id, r.owner_id, coalesce(r.project_uuid, lower(r.project_key))
            ORDER BY max(r.last_seen_at) DESC""",
    ):
        db.execute(statement)


def m025_what_no_column_holds(db: Database) -> None:
    """Data of API 2.0 about an object that no column has; only API 2.0 serves it.

    `value` is a compressed difference (`mirror.api2_extras`). `row_id` is that of the repository, also
    for its branches and tags, or of the user. `anonymous` is 1 if a crawl without credential got it, so that
    everybody may see it.
    """
    db.execute(
        """CREATE TABLE extras (
            kind TEXT NOT NULL,
            row_id INTEGER NOT NULL,
            name TEXT NOT NULL DEFAULT '',
            anonymous INTEGER NOT NULL,
            value BLOB NOT NULL,
            PRIMARY KEY (kind, row_id, name)
        ) WITHOUT ROWID"""
    )


def m040_slugs(db: Database) -> None:
    """An index of slugs, so that those of many owners are counted without sorting all of them."""
    db.execute(
        """CREATE INDEX repositories_slug ON repositories (slug COLLATE NOCASE, owner_id)
           WHERE deleted_at IS NULL"""
    )
