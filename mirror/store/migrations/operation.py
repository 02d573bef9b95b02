"""How the mirror is operated: runs, failures, requests, tokens, writes, webhooks, the file itself."""

from sqlite_utils import Database


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


def m015_what_the_first_versions_made_otherwise(db: Database) -> None:
    """Some files have an outdated trigger for new rows of the index; some lack the index of `writes`."""
    db.execute("DROP TRIGGER IF EXISTS search_inserted")
    db.execute("CREATE INDEX IF NOT EXISTS writes_at ON writes (at)")


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


def m018_failures_that_are_accepted(db: Database) -> None:
    """Failures that the operator accepts, or that are no faults: shown, but not missing."""
    db.execute("ALTER TABLE sync_failures ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0")


def m021_requests_that_were_sent(db: Database) -> None:
    """Count requests that were sent apart from reserved ones; until now each reserved one was sent."""
    db.execute("ALTER TABLE request_ledger ADD COLUMN sent INTEGER NOT NULL DEFAULT 0")
    db.execute("UPDATE request_ledger SET sent = requests")


def m026_what_kind_of_file(db: Database) -> None:
    """Facts about the file itself: whether it is a published snapshot, and its moment."""
    db.execute("CREATE TABLE mirror_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
