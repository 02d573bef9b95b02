"""Correct typing errors: find the name, or the words within a name, nearest to what was typed.

There is no dictionary. The text before the first error and the text after the last error were typed right. So
the name that was meant is in the leaf of the query's beginning (if the error comes after the path of that
leaf), or in the leaf of its end (if the error comes before), or, with an error on either side, in the leaf of
the middle. If the part typed right is still a common path, only the best repositories of its node are looked
at: a popular name is found, another may be missed.
"""

import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from itertools import chain, islice

from rapidfuzz import process
from rapidfuzz.distance import OSA

from mirror.search.index.format import IndexReader, Leaf, Node
from mirror.search.names import BOUNDARY
from mirror.search.pending import PendingRows, found_in
from mirror.search.query import Conditions, Query, owned_ids, plain_cursor
from mirror.search.scan import Names, RowReader

MAX_CANDIDATES = 300
"""The highest number of repositories whose names are compared; it takes half a millisecond."""

MAX_PENDING = 24
"""The highest number of pending repositories that are added to each list of the index."""

MOST_OWNED = 1_500
"""So many repositories of the wanted owners are all compared, in a few milliseconds."""

_LONGEST_CORRECTED = 200

_UNPREPARED = f"""
    SELECT id FROM (SELECT id FROM search_pending CROSS JOIN repositories NOT INDEXED USING (id)
        WHERE turn IS NULL AND {{0}} LIMIT {MAX_PENDING})
    UNION ALL
    SELECT id FROM (SELECT id FROM repositories NOT INDEXED
        WHERE id > :up_to AND {{0}} LIMIT {MAX_PENDING})"""

# The normal form of a name can be longer than the name, unless it is plain: `ß` is compared as `ss`.
_WITHOUT_INDEX = """SELECT id FROM repositories NOT INDEXED
    WHERE (length(name) >= :shortest OR length(slug) >= :shortest
        OR name GLOB '*[^ -~]*' OR slug GLOB '*[^ -~]*') AND {} LIMIT 20000"""


def errors_allowed(part: str) -> int:
    """Return how many errors are corrected in a text of this length: none below 3, one below 5, else two."""
    return 0 if len(part) < 3 else 1 if len(part) < 5 else 2


def nearest_name(
    connection: sqlite3.Connection,
    index: IndexReader,
    rows: RowReader,
    pending: PendingRows,
    query: Query,
) -> str | None:
    """Return the name, or the words within one, that was probably meant; None if none is near enough.

    Fewest errors first, then whole names, then the most popular.
    """
    part, collections = query.part, query.collections
    allowed = errors_allowed(part)
    if not allowed or len(part) > _LONGEST_CORRECTED:
        return None
    ids: Iterable[int] | None = owned_ids(connection, rows.conditions, MOST_OWNED)
    if ids is None and index.up_to:
        unprepared = _unprepared_ids(connection, rows.conditions, index.up_to)
        ids = [*_candidates(index, pending, part, collections), *unprepared]
    elif ids is None:
        ids = _all_ids(connection, rows.conditions, len(part) - allowed)
    meant = _nearest(part, allowed, rows.names(ids))
    if len(set(meant.values())) > 1:
        most_popular = min(rows.ranked(meant, 0))
        return meant[most_popular[-1]]
    return next(iter(meant.values()), None)


def _all_ids(connection: sqlite3.Connection, conditions: Conditions, shortest: int) -> list[int]:
    values = conditions.values | {"shortest": shortest}
    found = plain_cursor(connection).execute(_WITHOUT_INDEX.format(conditions.sql), values)
    return [row_id for (row_id,) in found]


def _unprepared_ids(connection: sqlite3.Connection, conditions: Conditions, up_to: int) -> list[int]:
    """Return ids of rows that neither the index nor a segment has, as a write leaves them, with any names."""
    sql = _UNPREPARED.format(conditions.sql)
    found = plain_cursor(connection).execute(sql, conditions.values | {"up_to": up_to})
    return [row_id for (row_id,) in found]


def _nearest(part: str, allowed: int, names: Mapping[int, Names]) -> dict[int, str]:
    """Return the repositories that have the fewest errors, whole names first, each with what was meant.

    That is its name or slug, or a run of as many words in it as `part` has. Text that equals `part` is left
    out, because it corrects nothing.
    """
    texts = dict.fromkeys(chain.from_iterable(names.values()))
    whole, errors = _fewest_errors(part, allowed, texts)
    # Words within a name are meant only if they have fewer errors than any name.
    longer = [text for text in texts if len(text) > len(part) + 1 - errors] if errors > 1 else []
    runs_of = _word_runs(1 + len(_SEPARATORS.findall(part)))
    near = [one for one in set(runs_of("\n".join(longer))) if abs(len(one) - len(part)) < errors]
    runs, _ = _fewest_errors(part, errors - 1, near)
    if runs:
        having = {one: [text for text in longer if one in text and one in runs_of(text)] for one in runs}
    else:
        having = {one: [one] for one in whole}
    meant = {text: one for one in sorted(having, reverse=True) for text in having[one]}
    return {
        row_id: min(meant[text] for text in pair if text in meant)
        for row_id, pair in names.items()
        if pair[0] in meant or pair[1] in meant
    }


def _fewest_errors(part: str, allowed: int, texts: Collection[str]) -> tuple[list[str], int]:
    """Return the texts that have the fewest errors, one to `allowed`, and how many errors those are.

    If there is none, that number is `allowed` and one more.
    """
    found = process.extract(part, list(texts), scorer=OSA.distance, score_cutoff=allowed, limit=None)
    near = [(text, errors) for text, errors, _ in found if errors]
    fewest = min([errors for _, errors in near], default=allowed + 1)
    return [text for text, errors in near if errors == fewest], fewest


_SEPARATORS = re.compile(r"[-._]")


@cache
def _word_runs(words: int) -> Callable[[str], list[str]]:
    """Return what finds every run of so many words in lines, overlapping ones too."""
    if words == 1:  # four times as fast as a pattern
        return lambda lines: lines.replace("-", "\n").replace(".", "\n").replace("_", "\n").split("\n")
    word, start = r"[^-._\n]++", r"(?<![^-._\n])"
    return re.compile(rf"{start}(?=({word}(?:[-._]{word}){{{words - 1}}}))").findall


def _candidates(
    index: IndexReader, pending: PendingRows, part: str, collections: Collection[int]
) -> list[int]:
    """Return the ids of repositories that may be meant, short lists first; those of nodes come last."""
    sure, popular = list[list[int]](), list[list[int]]()

    def listed(found: Node | Leaf, path: bytes) -> list[int]:
        lists = pending.lists_with(path, collections) if path else ()
        changed = islice(found_in(lists, path), MAX_PENDING)
        return [*index.listed_ids(found, collections), *(one.id for one in changed)]

    for boundary in (BOUNDARY, b""):  # as a whole name, then as words within one
        beginning, before = _rare_beginning(index, part, boundary)
        end, after = _rare_end(index, part, boundary)
        sure += (listed(one, one.path) for one in (beginning, end))
        if before < after:
            middle = part[before:after].encode()
            sure.append(listed(index.find(middle), middle))
        shorter_end = part[after + 1 :].encode() + boundary
        shorter_beginning = boundary + part[: max(before - 1, 0)].encode()
        for path in (shorter_end, shorter_beginning):
            popular.append(index.listed_ids(index.find(path), collections) if path else [])
    ids = dict.fromkeys(chain(*sorted(sure, key=len), *sorted(popular, key=len)))
    return list(ids)[:MAX_CANDIDATES]


def _rare_beginning(index: IndexReader, part: str, boundary: bytes) -> tuple[Leaf, int]:
    """Return the leaf of the query's shortest rare beginning, and where in `part` that beginning ends."""
    found = index.find(boundary + part.encode() + boundary)
    if isinstance(found, Node):
        return Leaf([]), len(part)
    return found, len(found.path.strip(BOUNDARY).decode(errors="replace"))


def _rare_end(index: IndexReader, part: str, boundary: bytes) -> tuple[Leaf, int]:
    """Return the leaf of the query's shortest rare end, and where in `part` that end begins."""

    def at(start: int) -> Node | Leaf:
        return index.find(part[start:].encode() + boundary)

    # An end of a common text is common. Most common ends have up to three letters: so look there first.
    start = max(len(part) - 4, 0)
    while start and isinstance(at(start), Node):
        start -= 1
    while start + 1 < len(part) and isinstance(at(start + 1), Leaf):
        start += 1
    found = at(start)
    return (found, start) if isinstance(found, Leaf) else (Leaf([]), 0)
