"""The index of refs (docs/refs.md), with its triggers."""

from sqlite_utils import Database


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


def m034_names_below_every_path(db: Database) -> None:
    """The index of refs lists all names below every path. The end of the next sync rebuilds it."""
    for table in ("names", "lists", "common", "rare", "spans", "counts", "hashes", "pending", "moved"):
        db.execute(f"DELETE FROM search_ref_{table}")
    db.execute("UPDATE search_ref_state SET up_to = 0")


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
