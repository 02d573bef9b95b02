"""What happened: changes, what of them is public, and the values of the past."""

from sqlite_utils import Database


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


def m020_parents_are_told_by_their_row_alone(db: Database) -> None:
    """Remove names of parents from recorded edits, which everybody may read: a parent may be private."""
    path = "$.parent_full_name"
    db.execute(
        "UPDATE changes SET old = json_remove(old, ?), new = json_remove(new, ?)"
        " WHERE kind = 'updated' AND json_valid(old) AND json_valid(new)"
        " AND (instr(old, 'parent_full_name') OR instr(new, 'parent_full_name'))",
        (path, path),
    )


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


def m030_what_moved_that_should_not(db: Database) -> None:
    """Whether a webhook reported a forced push (NULL: unknown), and indexes of rare changes."""
    for statement in (
        "ALTER TABLE changes ADD COLUMN forced INTEGER",
        "CREATE INDEX changes_forced ON changes (id) WHERE forced = 1",
        """CREATE INDEX changes_rare ON changes (kind, id) WHERE kind IN ('branch_deleted', 'deleted',
            'made_public', 'tag_deleted', 'tag_moved', 'transferred')""",
    ):
        db.execute(statement)


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


def m035_changes_of_owners(db: Database) -> None:
    """An index of the few changes of owners, so that those of one owner need no scan."""
    db.execute("CREATE INDEX changes_user ON changes (user_id) WHERE user_id IS NOT NULL")


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


def m038_more_rare_changes(db: Database) -> None:
    """The index of rare changes has all kinds that may be few, so that none is looked for among millions."""
    for statement in (
        "DROP INDEX changes_rare",
        """CREATE INDEX changes_rare ON changes (kind, id) WHERE kind IN ('branch_deleted', 'deleted',
            'made_private', 'made_public', 'owner_renamed', 'renamed', 'restored', 'tag_created',
            'tag_deleted', 'tag_moved', 'transferred')""",
    ):
        db.execute(statement)


def m042_what_sql_hides(db: Database) -> None:
    """An index of the public repositories that hide refs or changes; the other tells what is in a project."""
    for statement in (
        "CREATE INDEX repositories_hidden ON repositories (public_from) WHERE public_from > 0",
        "DROP INDEX repositories_owner_updated",
        """CREATE INDEX repositories_owner_updated
            ON repositories (owner_id, updated_at, id, is_private, deleted_at, project_key)
            WHERE deleted_at IS NULL""",
    ):
        db.execute(statement)
