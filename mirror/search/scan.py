"""Read rows without the index: those that it does not contain yet, and those whose ids it has found."""

import sqlite3
from collections.abc import Iterable, Iterator

import msgspec

from mirror.search.names import all_searched_names, match_class, popularity, searched_names
from mirror.search.query import Conditions, plain_cursor

RANKED_COLUMNS = "id, name, slug, followers_count, forks_count, created_at"

Hit = tuple[int, int, int, bytes, int]
"""A repository that matches: its match class, then its popularity key, which ends with its id.

Hits sort in the order of the results.
"""


def may_contain(*columns: str) -> str:
    """Return an SQL condition that is true of every row of which a column contains ``:part``.

    Of plain names, ASCII with single spaces, it is exact; it is true of all others.
    """
    each = """instr(replace(lower({0}), ' ', '-'), :part) OR {0} GLOB '*[^ -~]*'
        OR instr({0}, '  ') OR instr({0}, char(0))"""
    return f"({' OR '.join(each.format(column) for column in columns)})"


def new_hits(connection: sqlite3.Connection, part: str, conditions: Conditions, after: int) -> Iterator[Hit]:
    """Yield the hits among the rows with an id above `after`, in no particular order."""
    rows = plain_cursor(connection).execute(
        f"""SELECT {RANKED_COLUMNS} FROM repositories NOT INDEXED
            WHERE id > :after AND {may_contain("name", "slug")} AND {conditions.sql}""",
        conditions.values | {"after": after, "part": part},
    )
    for row_id, name, slug, followers, forks, created_at in rows:
        match = match_class(searched_names(name, slug), part)
        if match is not None:
            yield (match, *popularity(followers, forks, created_at, row_id))


LONG_ENOUGH = "(length(name) >= :shortest OR length(slug) >= :shortest)"


def names_of(
    cursor: sqlite3.Cursor, conditions: Conditions, ids: Iterable[int], shortest: int = 0
) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield the repositories that meet some conditions, each with its normalised name and slug.

    :param ids: those that are looked at
    :param shortest: how many characters the name or the slug must have
    """
    # Three texts take half the time that hundreds of rows do.
    row_ids, names, slugs = cursor.execute(
        f"""SELECT json_group_array(id), json_group_array(name), json_group_array(slug)
            FROM repositories NOT INDEXED WHERE id IN (SELECT value FROM json_each(:wanted))
            AND {LONG_ENOUGH} AND {conditions.sql}""",
        conditions.values | {"wanted": msgspec.json.encode(list(ids)).decode(), "shortest": shortest},
    ).fetchone()
    decode = msgspec.json.decode
    return zip(decode(row_ids), all_searched_names(decode(names), decode(slugs)), strict=True)


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
