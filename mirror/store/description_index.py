"""Rebuild the index of descriptions, and compare it with the rows.

It is an FTS5 index that stores no text. Triggers update it in the transaction of each change, so it has no
backlog.
"""

import sqlite3


def rebuild_descriptions(connection: sqlite3.Connection) -> None:
    """Rebuild the index from the rows; call it in a transaction."""
    connection.execute("INSERT INTO search_descriptions (search_descriptions) VALUES ('delete-all')")
    connection.execute(
        "INSERT INTO search_descriptions (rowid, description) SELECT id, description FROM repositories"
    )


_WORDS_OF = "tokenize='unicode61 remove_diacritics 2', columnsize=0"
"""The tokenizer, the same as in the migration."""

_HAVE = """SELECT term, count(*) AS rows, sum(doc) AS ids, sum(doc * doc % 1000003) AS squares
    FROM temp.{} GROUP BY term"""


def check_descriptions(connection: sqlite3.Connection) -> list[str]:
    """Compare the index with the rows; return a line if it is wrong, else an empty list.

    FTS5's own check writes, which a reader may not. So this builds a second index in a temporary table, and
    compares the repositories of each word. Raises sqlite3.Error.
    """
    for statement in (
        f"CREATE VIRTUAL TABLE temp.anew USING fts5(description, content='', {_WORDS_OF})",
        "INSERT INTO temp.anew (rowid, description) SELECT id, description FROM main.repositories",
        "CREATE VIRTUAL TABLE temp.words_there USING fts5vocab('main', 'search_descriptions', 'instance')",
        "CREATE VIRTUAL TABLE temp.words_anew USING fts5vocab('temp', 'anew', 'instance')",
    ):
        connection.execute(statement)
    there, anew = _HAVE.format("words_there"), _HAVE.format("words_anew")
    count, first = connection.execute(
        f"""SELECT count(DISTINCT term), min(term) FROM (
            SELECT * FROM ({there} EXCEPT {anew}) UNION ALL SELECT * FROM ({anew} EXCEPT {there}))"""
    ).fetchone()
    return [f"{count} words of descriptions are not as the rows have them, {first!r} first"] if count else []
