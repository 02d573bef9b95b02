"""Correct typing errors: find the name, or the words within a name, nearest to what was typed.

There is no dictionary. The text before the first error and the text after the last error were typed right. So
the name that was meant is in the leaf of the query's beginning (if the error comes after the path of that
leaf), or in the leaf of its end (if the error comes before), or, with an error on either side, in the leaf of
the middle. If the part typed right is still a common path, only the best repositories of its node are looked
at: a popular name is found, another may be missed.
"""

import json
import re
import sqlite3
from functools import cache
from itertools import chain

from rapidfuzz.distance import OSA

from mirror.search.index.format import IndexReader, Leaf, Node
from mirror.search.names import BOUNDARY, popularity, searched_names
from mirror.search.query import Conditions, plain_cursor
from mirror.search.scan import RANKED_COLUMNS

MAX_CANDIDATES = 300
"""The highest number of repositories that are looked at; it takes a millisecond or two."""

_LONGEST_CORRECTED = 200

_LONG_ENOUGH = "(length(name) >= :length OR length(slug) >= :length)"


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
    ids = _candidates(index, part, collections) if index.up_to else None
    rows = plain_cursor(connection).execute(
        f"""SELECT {RANKED_COLUMNS} FROM repositories NOT INDEXED WHERE {conditions.sql}
            AND {"1" if ids is None else "id IN (SELECT value FROM json_each(:wanted))"}
            AND {_LONG_ENOUGH} LIMIT 20000""",
        conditions.values | {"wanted": json.dumps(ids), "length": len(part) - allowed},
    )
    nearest = _Nearest(part, allowed)
    known, best = dict[tuple[str, str], tuple[int, bool, str]](), None
    for row_id, name, slug, followers, forks, created_at in rows:
        found = known.get((name, slug))
        if found is None:
            found = known[name, slug] = min(map(nearest.within, {*searched_names(name, slug)}))
        errors, is_part, meant = found
        if errors <= allowed:
            rank = (errors, is_part, popularity(followers, forks, created_at, row_id), meant)
            best = rank if best is None else min(best, rank)
    return best[-1] if best else None


class _Nearest:
    """Finds the text in a name that is nearest to `part`; a query looks at hundreds of names."""

    def __init__(self, part: str, allowed: int) -> None:
        self._part, self._allowed = part, allowed
        self._shortest, self._longest = len(part) - allowed, len(part) + allowed
        self._runs = _word_runs(1 + part.count("-") + part.count(".") + part.count("_"))

    def within(self, text: str) -> tuple[int, bool, str]:
        """Return the number of errors, whether the text is only a part of the name, and the text.

        It is the name or a run of as many words as `part` has. Text that equals `part` is left out, because
        it corrects nothing.
        """
        best = (self._allowed + 1, False, "")
        for meant in {text, *self._runs.findall(text)}:
            if self._shortest <= len(meant) <= self._longest:
                errors = OSA.distance(self._part, meant, score_cutoff=self._allowed)
                if 0 < errors <= self._allowed:
                    best = min(best, (errors, meant != text, meant))
        return best


@cache
def _word_runs(words: int) -> re.Pattern[str]:
    """Return a pattern that finds every run of so many words, overlapping ones too."""
    run = r"[-._]".join([r"[^-._]+"] * words)
    return re.compile(rf"(?<![^-._])(?=({run})(?![^-._]))")


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
