"""Correct typing errors: find the name, or the words within a name, nearest to what was typed.

There is no dictionary. The text before the first error and the text after the last error were typed right. So
the name that was meant is in the leaf of the query's beginning (if the error comes after the path of that
leaf), or in the leaf of its end (if the error comes before), or, with an error on either side, in the leaf of
the middle. If the part typed right is still a common path, only the best repositories of its node are looked
at: a popular name is found, another may be missed.
"""

import re
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cache
from itertools import chain

from rapidfuzz import process
from rapidfuzz.distance import OSA

from mirror.search.index.format import IndexReader, Leaf, Node
from mirror.search.names import BOUNDARY
from mirror.search.query import Conditions, plain_cursor
from mirror.search.scan import LONG_ENOUGH, names_of

MAX_CANDIDATES = 300
"""The highest number of repositories whose names are compared; it takes half a millisecond."""

_LONGEST_CORRECTED = 200

_WITHOUT_INDEX = f"SELECT id FROM repositories NOT INDEXED WHERE {LONG_ENOUGH} AND {{}} LIMIT 20000"


def errors_allowed(part: str) -> int:
    """Return how many errors are corrected in a text of this length: none below 3, one below 5, else two."""
    return 0 if len(part) < 3 else 1 if len(part) < 5 else 2


def nearest_name(
    connection: sqlite3.Connection,
    index: IndexReader,
    part: str,
    collections: list[int],
    conditions: Conditions,
) -> str | None:
    """Return the name, or the words within one, that was probably meant; None if none is near enough.

    Fewest errors first, then whole names, then the most popular.

    :param part: the normalised query
    :param collections: the collections that may be shown
    :param conditions: which rows may be shown
    """
    allowed = errors_allowed(part)
    if not allowed or len(part) > _LONGEST_CORRECTED:
        return None
    cursor, shortest = plain_cursor(connection), len(part) - allowed
    if index.up_to:
        ids = _candidates(index, part, collections)
    else:
        values = conditions.values | {"shortest": shortest}
        ids = [row_id for (row_id,) in cursor.execute(_WITHOUT_INDEX.format(conditions.sql), values)]
    texts = defaultdict[str, list[int]](list)
    for row_id, (name, slug) in names_of(cursor, conditions, ids, shortest):
        texts[name].append(row_id)
        if slug is not name:
            texts[slug].append(row_id)
    meant = _nearest(part, allowed, texts)
    if not meant:
        return None
    most_popular = min(index.ranked(meant, 0))
    return meant[most_popular[-1]]


def _nearest(part: str, allowed: int, texts: Mapping[str, list[int]]) -> dict[int, str]:
    """Return the repositories that have the fewest errors, whole names first, each with what was meant.

    That is one of the texts, or a run of as many words in it as `part` has. Text that equals `part` is left
    out, because it corrects nothing.
    """
    runs_of = _word_runs(1 + len(_SEPARATORS.findall(part))).findall
    near = {
        (errors, is_run, one)
        for is_run, choices in enumerate((texts, set(runs_of("\n".join(texts)))))
        for one, errors in _near(part, allowed, choices)
    }
    if not near:
        return {}
    fewest, is_run, _ = min(near)
    meant = dict[int, str]()
    for one in sorted(one for *rank, one in near if rank == [fewest, is_run]):
        having = [text for text in texts if one in text and one in runs_of(text)] if is_run else [one]
        for text in having:
            meant = dict.fromkeys(texts[text], one) | meant
    return meant


def _near(part: str, allowed: int, texts: Collection[str]) -> list[tuple[str, int]]:
    """Return the texts with one to `allowed` errors, each with their number."""
    found = process.extract(part, list(texts), scorer=OSA.distance, score_cutoff=allowed, limit=None)
    return [(text, errors) for text, errors, _ in found if errors]


_SEPARATORS = re.compile(r"[-._]")


@cache
def _word_runs(words: int) -> re.Pattern[str]:
    """Return a pattern that finds every run of so many words in lines, overlapping ones too."""
    word, start = r"[^-._\n]++", r"(?<![^-._\n])"
    return re.compile(word if words == 1 else rf"{start}(?=({word}(?:[-._]{word}){{{words - 1}}}))")


def _candidates(index: IndexReader, part: str, collections: list[int]) -> list[int]:
    """Return the ids of repositories that may be meant, short lists first; those of nodes come last."""
    sure, popular = list[list[int]](), list[list[int]]()
    for boundary in (BOUNDARY, b""):  # as a whole name, then as words within one
        beginning, before = _rare_beginning(index, part, boundary)
        end, after = _rare_end(index, part, boundary)
        sure += (beginning.ids, end.ids)
        if before < after:
            sure.append(index.listed_ids(index.find(part[before:after].encode()), collections))
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
    for start in range(len(part) - 1, -1, -1):
        found = index.find(part[start:].encode() + boundary)
        if isinstance(found, Leaf):
            return found, start
    return Leaf([]), 0
