"""The index of names and descriptions, with its triggers."""

from sqlite_utils import Database


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


def m009_search_lists_of_fixed_width(db: Database) -> None:
    """Store the ids of the best in four bytes each. The next sync rebuilds older lists."""
    for table in ("common", "rare", "crowds", "pending"):
        db.execute(f"DELETE FROM search_{table}")
    db.execute("UPDATE search_state SET up_to = 0")


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


def _drop_search_tables(db: Database) -> None:
    """Drop the search index with its triggers and indexes, of any version."""
    for kind in ("trigger", "index", "table"):
        found = db.query(
            "SELECT name FROM sqlite_master WHERE type = ? AND name GLOB 'search_*' AND sql IS NOT NULL",
            [kind],
        )
        for row in list(found):
            db.execute(f"DROP {kind} {row['name']}")


def m013_names_that_sql_cannot_judge(db: Database) -> None:
    """An index of the few unusual names that SQL cannot compare, so that a scan uses SQL for all others."""
    db.execute(
        """CREATE INDEX search_odd_names ON repositories (id)
            WHERE (name GLOB '*[^ -~]*' OR instr(name, '  ') OR instr(name, char(0))
                OR slug GLOB '*[^ -~]*' OR instr(slug, '  ') OR instr(slug, char(0)))"""
    )


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


def m039_pending_rows_without_derived_columns(db: Database) -> None:
    """A page of a sync finds the rows that it made pending, without a look at all that wait."""
    db.execute("CREATE INDEX search_unprepared ON search_pending (id) WHERE text IS NULL")


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
