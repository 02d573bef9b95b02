"""How long history is kept: what is older than that is compacted to the first and last change of a day."""

import sqlite3

COMPACTED = "history_compacted_before"
"""The key of `mirror_meta` with the moment before which the past is true to the day."""


RARE_KINDS = "'branch_deleted', 'deleted', 'made_public', 'tag_deleted', 'tag_moved', 'transferred'"
"""The kinds of changes that the index `changes_rare` has, as its condition names them."""


def compacted_before(connection: sqlite3.Connection) -> str | None:
    """Return before which moment history was compacted; None where all of it is kept."""
    found = connection.execute("SELECT value FROM mirror_meta WHERE key = ?", (COMPACTED,)).fetchone()
    return None if found is None else str(found[0])
