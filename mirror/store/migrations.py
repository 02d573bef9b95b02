"""The tables, as numbered migrations: what SQL users may rely on, and how an older file is migrated.

Names of tables and columns are a contract. A released migration is never changed. A change is a new one at
the end, counted in `schema.py`, so that a file of a newer program is recognised.
"""

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from mirror.store.schema import MIGRATIONS

migrations = Migrations(MIGRATIONS)


@migrations()
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


@migrations()
def m002_the_crawl(db: Database) -> None:
    """The crawl: runs, changes, failures, spent requests, and the positions where it resumes."""
    for statement in (
        """CREATE TABLE sync_runs (
            id INTEGER PRIMARY KEY,
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            kind TEXT NOT NULL,
            started_at TEXT NOT NULL,
            finished_at TEXT,
            state TEXT NOT NULL,
            requests INTEGER NOT NULL DEFAULT 0,
            git_requests INTEGER NOT NULL DEFAULT 0,
            retries INTEGER NOT NULL DEFAULT 0,
            slept_seconds REAL NOT NULL DEFAULT 0,
            repositories_new INTEGER NOT NULL DEFAULT 0,
            repositories_changed INTEGER NOT NULL DEFAULT 0,
            repositories_gone INTEGER NOT NULL DEFAULT 0,
            refs_new INTEGER NOT NULL DEFAULT 0,
            refs_changed INTEGER NOT NULL DEFAULT 0,
            refs_gone INTEGER NOT NULL DEFAULT 0,
            failures INTEGER NOT NULL DEFAULT 0,
            error TEXT
        )""",
        "CREATE INDEX sync_runs_upstream ON sync_runs (upstream_id, id)",
        """CREATE TABLE changes (
            id INTEGER PRIMARY KEY,
            at TEXT NOT NULL,
            run_id INTEGER REFERENCES sync_runs(id),
            repository_id INTEGER REFERENCES repositories(id),
            user_id INTEGER REFERENCES users(id),
            kind TEXT NOT NULL,
            ref TEXT,
            old TEXT,
            new TEXT
        )""",
        "CREATE INDEX changes_at ON changes (at)",
        "CREATE INDEX changes_repository ON changes (repository_id)",
        """CREATE TABLE sync_failures (
            id INTEGER PRIMARY KEY,
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            kind TEXT NOT NULL,
            subject TEXT NOT NULL,
            repository_id INTEGER REFERENCES repositories(id),
            status INTEGER,
            error TEXT NOT NULL,
            place TEXT,
            first_at TEXT NOT NULL,
            last_at TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            next_try_at TEXT NOT NULL,
            UNIQUE (upstream_id, kind, subject)
        )""",
        "CREATE INDEX sync_failures_repository ON sync_failures (repository_id)",
        """CREATE TABLE cursors (
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            stream TEXT NOT NULL,
            value TEXT NOT NULL,
            updated_at TEXT NOT NULL,
            PRIMARY KEY (upstream_id, stream)
        ) WITHOUT ROWID""",
        """CREATE TABLE seen_refs (
            repository_id INTEGER NOT NULL,
            kind TEXT NOT NULL,
            name TEXT NOT NULL,
            PRIMARY KEY (repository_id, kind, name)
        ) WITHOUT ROWID""",
        """CREATE TABLE request_ledger (
            bucket TEXT NOT NULL,
            at INTEGER NOT NULL,
            requests INTEGER NOT NULL,
            PRIMARY KEY (bucket, at)
        ) WITHOUT ROWID""",
        """CREATE TABLE request_limits (
            bucket TEXT PRIMARY KEY,
            requests_per_hour INTEGER,
            held_until REAL
        ) WITHOUT ROWID""",
    ):
        db.execute(statement)


@migrations()
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


@migrations()
def m004_search_index(db: Database) -> None:
    """The name index (docs/search.md), and triggers that note rows that it does not know yet.

    `up_to` is the highest id that the index knows. Later rows are read directly. Earlier rows that change
    are pending, with their names as the index knows them. So searches are right whoever writes a repository,
    and a first load, which only inserts, pays nothing. A deleted row stays pending without a name, because
    the next row may get its id.
    """
    _make_search_tables(db)


def _make_search_tables(db: Database) -> None:
    searched = ("name", "slug", "is_private", "deleted_at", "followers_count", "forks_count", "created_at")
    was = "old.name, old.slug, (old.is_private <> 0) + 2 * (old.deleted_at IS NOT NULL)"
    known = "(SELECT up_to FROM search_state)"
    noted = "INSERT INTO search_pending (id, was_name, was_slug, was_collection, name, slug)"
    latest = "ON CONFLICT (id) DO UPDATE SET name = excluded.name, slug = excluded.slug, texts = NULL"
    for statement in (
        """CREATE TABLE search_state (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            up_to INTEGER NOT NULL
        )""",
        "INSERT INTO search_state VALUES (1, 0)",
        """CREATE TABLE search_common (
            path BLOB NOT NULL,
            collection INTEGER NOT NULL,
            repositories INTEGER NOT NULL,
            best BLOB NOT NULL,
            bar INTEGER NOT NULL,
            PRIMARY KEY (path, collection)
        ) WITHOUT ROWID""",
        "CREATE TABLE search_rare (path BLOB PRIMARY KEY, ids BLOB NOT NULL) WITHOUT ROWID",
        """CREATE TABLE search_crowds (
            text BLOB NOT NULL,
            chunk BLOB NOT NULL,
            ids BLOB NOT NULL,
            PRIMARY KEY (text, chunk)
        ) WITHOUT ROWID""",
        """CREATE TABLE search_pending (
            id INTEGER PRIMARY KEY,
            was_name TEXT,
            was_slug TEXT,
            was_collection INTEGER,
            name TEXT,
            slug TEXT,
            texts BLOB
        )""",
        "CREATE INDEX search_odd_owners ON users (username) WHERE username GLOB '*[^!-~]*'",
        f"""CREATE TRIGGER search_updated AFTER UPDATE OF {", ".join(searched)} ON repositories
            WHEN old.id <= {known} AND ({" OR ".join(f"old.{name} IS NOT new.{name}" for name in searched)})
            BEGIN {noted} VALUES (old.id, {was}, new.name, new.slug) {latest}; END""",
        f"""CREATE TRIGGER search_deleted AFTER DELETE ON repositories WHEN old.id <= {known}
            BEGIN {noted} VALUES (old.id, {was}, NULL, NULL) {latest}; END""",
    ):
        db.execute(statement)


@migrations()
def m005_api_tokens(db: Database) -> None:
    """Tokens of readers of private rows, and indexes that quickly find private rows.

    `user_id` is the mirrored user that the token acts for, if any. The first partial index finds private
    rows, the second the moment from which a repository's changes are public.
    """
    for statement in (
        """CREATE TABLE api_tokens (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL,
            user_id INTEGER REFERENCES users(id),
            token_hash TEXT NOT NULL UNIQUE,
            scope TEXT NOT NULL CHECK (scope IN ('read', 'write')),
            created_at TEXT NOT NULL,
            last_used_at TEXT,
            expires_at TEXT,
            revoked_at TEXT
        )""",
        "CREATE UNIQUE INDEX api_tokens_name ON api_tokens (name) WHERE revoked_at IS NULL",
        "CREATE INDEX repositories_private ON repositories (owner_id) WHERE is_private = 1",
        "CREATE INDEX changes_made_public ON changes (repository_id, id) WHERE kind = 'made_public'",
    ):
        db.execute(statement)


@migrations()
def m006_writes(db: Database) -> None:
    """Writes that were made upstream through this mirror, and by whom: the audit beside `changes`."""
    for statement in (
        """CREATE TABLE writes (
            id INTEGER PRIMARY KEY,
            at TEXT NOT NULL,
            asked_by TEXT NOT NULL,
            action TEXT NOT NULL CHECK (action IN ('create', 'update', 'delete', 'fork')),
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            repository_id INTEGER REFERENCES repositories(id),
            full_name TEXT NOT NULL,
            outcome TEXT NOT NULL CHECK (outcome IN ('done', 'unknown'))
        )""",
        "CREATE INDEX writes_at ON writes (at)",
    ):
        db.execute(statement)


@migrations()
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


@migrations()
def m008_webhook_deliveries(db: Database) -> None:
    """The webhooks of the last day, as hashes without contents, so that none is applied twice."""
    for statement in (
        """CREATE TABLE webhook_deliveries (
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            body_hash TEXT NOT NULL,
            request TEXT,
            event TEXT NOT NULL,
            at TEXT NOT NULL,
            PRIMARY KEY (upstream_id, body_hash)
        ) WITHOUT ROWID""",
        """CREATE UNIQUE INDEX webhook_deliveries_request ON webhook_deliveries (upstream_id, request)
            WHERE request IS NOT NULL""",
    ):
        db.execute(statement)


@migrations()
def m009_search_lists_of_fixed_width(db: Database) -> None:
    """Store the ids of the best in four bytes each. The next sync rebuilds older lists."""
    for table in ("common", "rare", "crowds", "pending"):
        db.execute(f"DELETE FROM search_{table}")
    db.execute("UPDATE search_state SET up_to = 0")


@migrations()
def m010_order_of_popularity(db: Database) -> None:
    """An index for deep pages of a search; ten bytes for a row with followers or forks, else none."""
    db.execute(
        """CREATE INDEX repositories_followed ON repositories (followers_count)
            WHERE followers_count > 0 AND deleted_at IS NULL"""
    )
    db.execute(
        """CREATE INDEX repositories_forked ON repositories (forks_count)
            WHERE forks_count > 0 AND coalesce(followers_count, 0) <= 0 AND deleted_at IS NULL"""
    )


@migrations()
def m011_pending_in_full(db: Database) -> None:
    """Note all data of pending rows that a search needs, so that SQL alone counts and ranks them.

    `was_text` is what the index has, `text` is the current value, NULL until it is noted. The three columns
    after it sort as `mirror.search.names.popularity` does. Tables of the first versions of the index are
    dropped, and the next sync rebuilds the index.
    """
    if "texts" not in db["search_pending"].columns_dict:
        _drop_search_tables(db)
        _make_search_tables(db)
    db.execute("ALTER TABLE search_pending RENAME COLUMN texts TO text")
    db.execute("UPDATE search_pending SET text = NULL")
    for column in (
        "was_text BLOB",
        "collection INTEGER",
        "by_followers INTEGER",
        "by_forks INTEGER",
        "by_creation BLOB",
    ):
        db.execute(f"ALTER TABLE search_pending ADD COLUMN {column}")


@migrations()
def m012_what_is_hidden_of_the_public(db: Database) -> None:
    """The last hidden change of each public repository, and an index that counts private forks.

    `public_from` is written by `mirror.store.changes`, whose highest number is repeated here. All history of
    repositories that were made public before is hidden, because earlier versions did not record when their
    refs were read.
    """
    for statement in (
        "ALTER TABLE repositories ADD COLUMN public_from INTEGER NOT NULL DEFAULT 0",
        """UPDATE repositories SET public_from = (SELECT max(id) FROM changes)
            WHERE id IN (SELECT repository_id FROM changes WHERE kind = 'made_public')""",
        """UPDATE repositories SET public_from = 9223372036854775807, refs_stale = (deleted_at IS NULL)
            WHERE public_from > 0 AND (id IN (SELECT repository_id FROM branches)
                OR id IN (SELECT repository_id FROM tags))""",
        """CREATE INDEX repositories_private_forks ON repositories (parent_id)
            WHERE is_private = 1 AND deleted_at IS NULL AND parent_id IS NOT NULL""",
    ):
        db.execute(statement)


@migrations()
def m013_names_that_sql_cannot_judge(db: Database) -> None:
    """An index of the few unusual names that SQL cannot compare, so that a scan uses SQL for all others."""
    db.execute(
        """CREATE INDEX search_odd_names ON repositories (id)
            WHERE (name GLOB '*[^ -~]*' OR instr(name, '  ') OR instr(name, char(0))
                OR slug GLOB '*[^ -~]*' OR instr(slug, '  ') OR instr(slug, char(0)))"""
    )


@migrations()
def m014_whatever_is_not_git(db: Database) -> None:
    """An index of repositories that are not git; empty on Bitbucket today, so filters by scm cost nothing."""
    db.execute("CREATE INDEX repositories_other_scm ON repositories (scm) WHERE scm IS NOT 'git'")


@migrations()
def m015_what_the_first_versions_made_otherwise(db: Database) -> None:
    """Some files have an outdated trigger for new rows of the index; some lack the index of `writes`."""
    db.execute("DROP TRIGGER IF EXISTS search_inserted")
    db.execute("CREATE INDEX IF NOT EXISTS writes_at ON writes (at)")


@migrations()
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


@migrations()
def m017_deliveries_by_number(db: Database) -> None:
    """Identify deliveries by the sender's number as well: equal bodies may be two events.

    The deliveries of the last day are deleted; applying one again only changes what a run confirms.
    """
    db.execute("DROP TABLE webhook_deliveries")
    db.execute(
        """CREATE TABLE webhook_deliveries (
            upstream_id INTEGER NOT NULL REFERENCES upstreams(id),
            request TEXT NOT NULL,
            event TEXT NOT NULL,
            body_hash TEXT NOT NULL,
            at TEXT NOT NULL,
            PRIMARY KEY (upstream_id, request, event, body_hash)
        ) WITHOUT ROWID"""
    )


@migrations()
def m018_failures_that_are_accepted(db: Database) -> None:
    """Failures that the operator accepts, or that are no faults: shown, but not missing."""
    db.execute("ALTER TABLE sync_failures ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0")


@migrations()
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


@migrations()
def m020_parents_are_told_by_their_row_alone(db: Database) -> None:
    """Remove names of parents from recorded edits, which everybody may read: a parent may be private."""
    path = "$.parent_full_name"
    db.execute(
        "UPDATE changes SET old = json_remove(old, ?), new = json_remove(new, ?)"
        " WHERE kind = 'updated' AND json_valid(old) AND json_valid(new)"
        " AND (instr(old, 'parent_full_name') OR instr(new, 'parent_full_name'))",
        (path, path),
    )


@migrations()
def m021_requests_that_were_sent(db: Database) -> None:
    """Count requests that were sent apart from reserved ones; until now each reserved one was sent."""
    db.execute("ALTER TABLE request_ledger ADD COLUMN sent INTEGER NOT NULL DEFAULT 0")
    db.execute("UPDATE request_ledger SET sent = requests")


@migrations()
def m022_followers_by_user(db: Database) -> None:
    """An index of what a user follows, which decides whether a stranger may know the user."""
    db.execute("CREATE INDEX followers_user ON followers (user_id)")


@migrations()
def m023_archived(db: Database) -> None:
    """Whether a repository is archived, which Data Center reports since 8.0; NULL if unknown."""
    db.execute("ALTER TABLE repositories ADD COLUMN archived INTEGER")


@migrations()
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


@migrations()
def m025_what_no_column_holds(db: Database) -> None:
    """Data of API 2.0 about an object that no column has; only API 2.0 serves it.

    `value` is a compressed difference (`mirror.api2_objects`). `row_id` is that of the repository, also
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


@migrations()
def m026_what_kind_of_file(db: Database) -> None:
    """Facts about the file itself: whether it is a published snapshot, and its moment."""
    db.execute("CREATE TABLE mirror_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")


@migrations()
def m027_refs_index(db: Database) -> None:
    """The index of refs by name and by commit (docs/refs.md), and triggers that note what it does not know.

    As in the name index, `up_to` is the highest id of a repository that the index knows. Refs of later ones
    are read directly, so that a first load pays nothing. A ref that changes is pending with its values in
    the index, and so is a repository whose refs become hidden, public or gone.
    """
    hidden = 2**63 - 1  # `public_from` of a repository whose refs were read while it was private
    was, now = (
        f"({row}.is_private <> 0 OR {row}.public_from = {hidden}) + 2 * ({row}.deleted_at IS NOT NULL)"
        for row in ("old", "new")
    )
    known = "(SELECT up_to FROM search_ref_state)"
    noted = (
        "INSERT INTO search_ref_pending (repository_id, kind, name, was_hash, was_date)"
        " VALUES ({0}.repository_id, {1}, {0}.name, {2}) ON CONFLICT DO NOTHING"
    )
    moved = f"INSERT INTO search_ref_moved VALUES (old.id, {was}) ON CONFLICT DO NOTHING"
    for statement in (
        """CREATE TABLE search_ref_state (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            up_to INTEGER NOT NULL
        )""",
        "INSERT INTO search_ref_state VALUES (1, 0)",
        """CREATE TABLE search_ref_names (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            text BLOB NOT NULL
        )""",
        """CREATE TABLE search_ref_lists (
            name_id INTEGER NOT NULL,
            list INTEGER NOT NULL,
            start INTEGER NOT NULL,
            repositories BLOB NOT NULL,
            ages BLOB NOT NULL,
            PRIMARY KEY (name_id, list, start)
        ) WITHOUT ROWID""",
        """CREATE TABLE search_ref_common (
            path BLOB NOT NULL,
            collection INTEGER NOT NULL,
            branches INTEGER NOT NULL,
            tags INTEGER NOT NULL,
            with_branches INTEGER NOT NULL,
            with_tags INTEGER NOT NULL,
            with_either INTEGER NOT NULL,
            best_branches BLOB NOT NULL,
            best_tags BLOB NOT NULL,
            PRIMARY KEY (path, collection)
        ) WITHOUT ROWID""",
        """CREATE TABLE search_ref_rare (
            path BLOB PRIMARY KEY,
            cost INTEGER NOT NULL,
            names BLOB NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE search_ref_hashes (
            bucket INTEGER PRIMARY KEY,
            digits BLOB NOT NULL,
            repositories BLOB NOT NULL
        )""",
        """CREATE TABLE search_ref_pending (
            id INTEGER PRIMARY KEY,
            repository_id INTEGER NOT NULL,
            kind INTEGER NOT NULL,
            name TEXT NOT NULL,
            was_hash TEXT,
            was_date TEXT,
            UNIQUE (repository_id, kind, name)
        )""",
        "CREATE TABLE search_ref_moved (repository_id INTEGER PRIMARY KEY, was INTEGER NOT NULL)",
        f"""CREATE TRIGGER search_ref_repository_updated
            AFTER UPDATE OF is_private, deleted_at, public_from ON repositories
            WHEN old.id <= {known} AND {was} <> {now} BEGIN {moved}; END""",
        f"""CREATE TRIGGER search_ref_repository_deleted AFTER DELETE ON repositories
            WHEN old.id <= {known} BEGIN {moved}; END""",
    ):
        db.execute(statement)
    for kind, table in enumerate(("branches", "tags")):
        before = noted.format("old", kind, "old.target_hash, old.target_date")
        after = noted.format("new", kind, "NULL, NULL")
        for statement in (
            f"""CREATE TRIGGER search_ref_{table}_inserted AFTER INSERT ON {table}
                WHEN new.repository_id <= {known} BEGIN {after}; END""",
            f"""CREATE TRIGGER search_ref_{table}_updated
                AFTER UPDATE OF repository_id, name, target_hash, target_date ON {table}
                WHEN old.repository_id <= {known}
                    AND (old.repository_id, old.name, old.target_hash, old.target_date)
                        IS NOT (new.repository_id, new.name, new.target_hash, new.target_date)
                BEGIN {before}; {after}; END""",
            f"""CREATE TRIGGER search_ref_{table}_deleted AFTER DELETE ON {table}
                WHEN old.repository_id <= {known} BEGIN {before}; END""",
        ):
            db.execute(statement)


@migrations()
def m028_words_of_descriptions(db: Database) -> None:
    """An index of the words of descriptions, for searches that include them.

    Its content table is always empty. So programs that dump tables find no rows in the index, and the output
    of the iterdump of Python's sqlite3 can be restored, which cannot insert into a virtual table.
    """
    add = "INSERT INTO search_descriptions (rowid, description) VALUES (new.id, new.description);"
    remove = """INSERT INTO search_descriptions (search_descriptions, rowid, description)
        VALUES ('delete', old.id, old.description);"""
    for statement in (
        "CREATE TABLE search_descriptions_texts (id INTEGER PRIMARY KEY, description TEXT)",
        """CREATE VIRTUAL TABLE search_descriptions USING fts5(
            description, content='search_descriptions_texts',
            content_rowid='id', tokenize='unicode61 remove_diacritics 2', columnsize=0)""",
        # Rows without a description count too: FTS5 refuses to remove more rows than it has got.
        f"CREATE TRIGGER search_description_added AFTER INSERT ON repositories BEGIN {add} END",
        f"CREATE TRIGGER search_description_removed AFTER DELETE ON repositories BEGIN {remove} END",
        f"""CREATE TRIGGER search_description_changed AFTER UPDATE OF description ON repositories
            WHEN old.description IS NOT new.description BEGIN {remove} {add} END""",
        "INSERT INTO search_descriptions (rowid, description) SELECT id, description FROM repositories",
    ):
        db.execute(statement)


@migrations()
def m029_looks_around_changes(db: Database) -> None:
    """The look before each change, the moment since which refs are known, and an index of former names.

    NULL in `previous_look` and `refs_known_since` means that an earlier version recorded the row.
    """
    db.execute("ALTER TABLE changes ADD COLUMN previous_look TEXT")
    db.execute("ALTER TABLE repositories ADD COLUMN refs_known_since TEXT")
    db.execute(
        """CREATE INDEX changes_names ON changes (old COLLATE NOCASE)
            WHERE kind IN ('renamed', 'transferred')"""
    )


@migrations()
def m030_what_moved_that_should_not(db: Database) -> None:
    """Whether a webhook reported a forced push (NULL: unknown), and indexes of rare changes."""
    for statement in (
        "ALTER TABLE changes ADD COLUMN forced INTEGER",
        "CREATE INDEX changes_forced ON changes (id) WHERE forced = 1",
        """CREATE INDEX changes_rare ON changes (kind, id) WHERE kind IN ('branch_deleted', 'deleted',
            'made_public', 'tag_deleted', 'tag_moved', 'transferred')""",
    ):
        db.execute(statement)


@migrations()
def m031_sizes_of_the_past(db: Database) -> None:
    """Former values of columns that move with every push, and the date of a ref's former commit.

    A row of `measures` has the values that a repository had until the mirror saw new ones. In a file with
    repositories, they are recorded since the last look of the previous version.
    """
    for statement in (
        """CREATE TABLE measures (
            repository_id INTEGER NOT NULL REFERENCES repositories(id),
            until TEXT NOT NULL,
            size INTEGER,
            updated_at TEXT,
            followers_count INTEGER,
            PRIMARY KEY (repository_id, until)
        ) WITHOUT ROWID""",
        "ALTER TABLE changes ADD COLUMN old_date TEXT",
        """INSERT INTO mirror_meta (key, value) SELECT 'measures_since', max(last_seen_at) FROM repositories
            WHERE true HAVING count(*) > 0""",
    ):
        db.execute(statement)


@migrations()
def m032_spans_of_refs(db: Database) -> None:
    """The number of refs of the most common paths in each span of time (docs/refs.md), for late pages.

    The end of the next sync builds them. `commits` is 0 if the index has no hashes.
    """
    for statement in (
        """CREATE TABLE search_ref_spans (
            id INTEGER PRIMARY KEY,
            start INTEGER NOT NULL UNIQUE,
            lists BLOB NOT NULL
        )""",
        """CREATE TABLE search_ref_counts (
            path BLOB NOT NULL,
            collection INTEGER NOT NULL,
            branches BLOB NOT NULL,
            tags BLOB NOT NULL,
            PRIMARY KEY (path, collection)
        )""",
        "ALTER TABLE search_ref_state ADD COLUMN commits INTEGER NOT NULL DEFAULT 1",
    ):
        db.execute(statement)


@migrations()
def m033_columns_of_the_search_index(db: Database) -> None:
    """The values of filters and of the order of results, as arrays; a change of one makes a row pending too.

    Lists also have one more end of a text, so the next sync rebuilds the index. Three SQL indexes are no
    longer needed.
    """
    for statement in (
        "DROP INDEX repositories_followed",
        "DROP INDEX repositories_forked",
        "DROP INDEX search_odd_names",
        """CREATE TABLE search_columns (
            name TEXT NOT NULL,
            chunk INTEGER NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (name, chunk)
        ) WITHOUT ROWID""",
        """CREATE TABLE search_languages (
            code INTEGER PRIMARY KEY,
            language TEXT NOT NULL UNIQUE COLLATE NOCASE
        )""",
        """CREATE TABLE search_dense (
            path BLOB NOT NULL,
            chunk INTEGER NOT NULL,
            bits BLOB NOT NULL,
            PRIMARY KEY (path, chunk)
        ) WITHOUT ROWID""",
        "DROP TRIGGER search_updated",
        _trigger_of_updates("text = NULL"),
        *(f"DELETE FROM search_{table}" for table in ("common", "rare", "crowds", "pending")),
        "UPDATE search_state SET up_to = 0",
    ):
        db.execute(statement)


def _trigger_of_updates(latest: str) -> str:
    """Return the trigger that makes a changed row pending; `latest` is what else it sets of a pending one."""
    forks = "({0}.parent_id IS NOT NULL OR {0}.parent_uuid IS NOT NULL OR {0}.parent_full_name IS NOT NULL)"
    seen = (
        "name", "slug", "is_private", "deleted_at", "followers_count", "forks_count", "created_at",
        "owner_id", "scm", "language", "archived",
    )  # fmt: skip
    changed = [f"old.{name} IS NOT new.{name}" for name in seen]
    changed.append(f"{forks.format('old')} <> {forks.format('new')}")
    columns = ", ".join((*seen, "parent_id", "parent_uuid", "parent_full_name"))
    was = "old.name, old.slug, (old.is_private <> 0) + 2 * (old.deleted_at IS NOT NULL)"
    return f"""CREATE TRIGGER search_updated AFTER UPDATE OF {columns} ON repositories
            WHEN old.id <= (SELECT up_to FROM search_state) AND ({" OR ".join(changed)})
            BEGIN INSERT INTO search_pending (id, was_name, was_slug, was_collection, name, slug)
                VALUES (old.id, {was}, new.name, new.slug) ON CONFLICT (id)
                DO UPDATE SET name = excluded.name, slug = excluded.slug, {latest}; END"""


@migrations()
def m034_names_below_every_path(db: Database) -> None:
    """The index of refs lists all names below every path. The end of the next sync rebuilds it."""
    for table in ("names", "lists", "common", "rare", "spans", "counts", "hashes", "pending", "moved"):
        db.execute(f"DELETE FROM search_ref_{table}")
    db.execute("UPDATE search_ref_state SET up_to = 0")


@migrations()
def m035_changes_of_owners(db: Database) -> None:
    """An index of the few changes of owners, so that those of one owner need no scan."""
    db.execute("CREATE INDEX changes_user ON changes (user_id) WHERE user_id IS NOT NULL")


@migrations()
def m036_moves_of_main_branches(db: Database) -> None:
    """Whether a branch that moved was the main one then; recorded moves count if it is the main one today.

    The index had all forced pushes, of which few are of main branches.
    """
    for statement in (
        "ALTER TABLE changes ADD COLUMN is_main INTEGER",
        """UPDATE changes SET is_main = 1 WHERE kind = 'branch_moved'
            AND ref = (SELECT main_branch FROM repositories r WHERE r.id = repository_id)""",
        "DROP INDEX changes_forced",
        "CREATE INDEX changes_forced ON changes (id) WHERE forced = 1 AND is_main = 1",
    ):
        db.execute(statement)


@migrations()
def m037_blocks_of_refs(db: Database) -> None:
    """The number of refs of each list in each small part of a span, for late pages.

    Paths with the same names share a node. The end of the next sync rebuilds the index of refs.
    """
    for table in ("names", "lists", "rare", "hashes", "pending", "moved"):
        db.execute(f"DELETE FROM search_ref_{table}")
    for statement in (
        "UPDATE search_ref_state SET up_to = 0",
        *(f"DROP TABLE search_ref_{table}" for table in ("common", "spans", "counts")),
        "CREATE TABLE search_ref_paths (path BLOB PRIMARY KEY, node INTEGER NOT NULL) WITHOUT ROWID",
        """CREATE TABLE search_ref_common (
            node INTEGER NOT NULL,
            collection INTEGER NOT NULL,
            branches INTEGER NOT NULL,
            tags INTEGER NOT NULL,
            with_branches INTEGER NOT NULL,
            with_tags INTEGER NOT NULL,
            with_either INTEGER NOT NULL,
            best_branches BLOB NOT NULL,
            best_tags BLOB NOT NULL,
            PRIMARY KEY (node, collection)
        ) WITHOUT ROWID""",
        """CREATE TABLE search_ref_counts (
            node INTEGER NOT NULL,
            collection INTEGER NOT NULL,
            branches BLOB NOT NULL,
            tags BLOB NOT NULL,
            PRIMARY KEY (node, collection)
        )""",
        "CREATE TABLE search_ref_spans (start INTEGER PRIMARY KEY)",
        """CREATE TABLE search_ref_blocks (
            start INTEGER PRIMARY KEY,
            lists BLOB NOT NULL,
            counts BLOB NOT NULL
        )""",
    ):
        db.execute(statement)


@migrations()
def m038_more_rare_changes(db: Database) -> None:
    """The index of rare changes has all kinds that may be few, so that none is looked for among millions."""
    for statement in (
        "DROP INDEX changes_rare",
        """CREATE INDEX changes_rare ON changes (kind, id) WHERE kind IN ('branch_deleted', 'deleted',
            'made_private', 'made_public', 'owner_renamed', 'renamed', 'restored', 'tag_created',
            'tag_deleted', 'tag_moved', 'transferred')""",
    ):
        db.execute(statement)


def _drop_search_tables(db: Database) -> None:
    """Drop the search index with its triggers and indexes, of any version."""
    for kind in ("trigger", "index", "table"):
        found = db.query(
            "SELECT name FROM sqlite_master WHERE type = ? AND name GLOB 'search_*' AND sql IS NOT NULL",
            [kind],
        )
        for row in list(found):
            db.execute(f"DROP {kind} {row['name']}")


@migrations()
def m039_pending_rows_without_derived_columns(db: Database) -> None:
    """A page of a sync finds the rows that it made pending, without a look at all that wait."""
    db.execute("CREATE INDEX search_unprepared ON search_pending (id) WHERE text IS NULL")


@migrations()
def m040_slugs(db: Database) -> None:
    """An index of slugs, so that those of many owners are counted without sorting all of them."""
    db.execute(
        """CREATE INDEX repositories_slug ON repositories (slug COLLATE NOCASE, owner_id)
           WHERE deleted_at IS NULL"""
    )


@migrations()
def m041_segments(db: Database) -> None:
    """Pending rows are searched in segments, which pages write, instead of one by one.

    `turn` is that of the segment that has a row as it is now, NULL if none has it yet. What the row was is
    what the index contains, or the last segment that had it. Rows that are pending already are in none.
    """
    was = ("was_name", "was_slug", "was_collection")
    latest = ", ".join(f"{one} = iif(turn IS NULL, {one}, excluded.{one})" for one in was) + ", turn = NULL"
    for statement in (
        "DROP TRIGGER IF EXISTS search_updated",  # a dump of tables alone has none
        "DROP TRIGGER IF EXISTS search_deleted",
        "ALTER TABLE search_pending RENAME TO old_search_pending",
        """CREATE TABLE search_pending (
            id INTEGER PRIMARY KEY,
            was_name TEXT,
            was_slug TEXT,
            was_collection INTEGER,
            name TEXT,
            slug TEXT,
            turn INTEGER
        )""",
        """INSERT INTO search_pending (id, was_name, was_slug, was_collection, name, slug)
            SELECT id, was_name, was_slug, was_collection, name, slug FROM old_search_pending""",
        "DROP TABLE old_search_pending",
        "CREATE INDEX search_unprepared ON search_pending (id) WHERE turn IS NULL",
        """CREATE TABLE search_segments (
            last_turn INTEGER PRIMARY KEY,
            first_turn INTEGER NOT NULL,
            rows INTEGER NOT NULL,
            digest BLOB NOT NULL,
            data BLOB NOT NULL
        )""",
        _trigger_of_updates(latest),
        f"""CREATE TRIGGER search_deleted AFTER DELETE ON repositories
            WHEN old.id <= (SELECT up_to FROM search_state)
            BEGIN INSERT INTO search_pending (id, was_name, was_slug, was_collection)
                VALUES (old.id, old.name, old.slug, (old.is_private <> 0) + 2 * (old.deleted_at IS NOT NULL))
                ON CONFLICT (id) DO UPDATE SET name = NULL, slug = NULL, {latest}; END""",
    ):
        db.execute(statement)
