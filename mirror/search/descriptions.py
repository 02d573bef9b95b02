"""Repositories whose description has the words of a query, and whose name does not match it."""

import sqlite3
from collections.abc import Iterator

from mirror.search.names import match_class, popularity, searched_names
from mirror.search.query import Conditions, plain_cursor
from mirror.search.scan import RANKED_COLUMNS, Hit

DESCRIBED = 3
"""The match class of what is found by its description: behind all matches of names."""


def described_hits(connection: sqlite3.Connection, part: str, conditions: Conditions) -> Iterator[Hit]:
    """Yield the repositories that match a normalised query only by their description, unordered."""
    words = _expression(part)
    if not words:
        return
    rows = plain_cursor(connection).execute(
        f"""SELECT {RANKED_COLUMNS} FROM repositories WHERE {conditions.sql}
            AND id IN (SELECT rowid FROM search_descriptions WHERE search_descriptions MATCH :words)""",
        {**conditions.values, "words": words},
    )
    for row_id, name, slug, followers, forks, created_at in rows:
        if match_class(searched_names(name, slug), part) is None:
            yield (DESCRIBED, *popularity(followers, forks, created_at, row_id))


def _expression(part: str) -> str:
    """Return the query in FTS5's language: each word quoted, as the beginning of a described word."""
    words = part.replace("\x00", "-").split("-")
    return " AND ".join(f'"{word.replace(chr(34), chr(34) * 2)}" *' for word in words if word)
