"""Correcting typing errors: the name, or the words in a name, nearest to what was typed.

There is no dictionary to keep. Before its first error a text is typed right, and after its last one: so it
is in the leaf of the beginning, if the error comes after that, or in the leaf of the end, if it comes
before; with an error on either side it is in the leaf of the middle. Where all that is right is still in
many names, only the most popular of these are looked at.
"""

import json
import re
import sqlite3
from functools import cache
from itertools import chain

from rapidfuzz.distance import OSA

from mirror.search.index.reader import Common, Rare, Trie
from mirror.search.names import MARK, popularity, searched_names
from mirror.search.query import Conditions
from mirror.search.scan import RANKED_COLUMNS

CANDIDATES = 300
"""So many repositories are looked at, at most, in a millisecond or two."""

_LONG_ENOUGH = "(length(name) >= :length OR length(slug) >= :length)"


def errors_allowed(part: str) -> int:
    """Return how many errors are corrected in a text of this length: none, one or two."""
    return 0 if len(part) < 3 else 1 if len(part) < 5 else 2


def nearest_name(
    connection: sqlite3.Connection, trie: Trie, part: str, collections: list[int], conditions: Conditions
) -> str | None:
    """Find what was meant by a normalised query: a name that may be shown, or words in one, as it has words.

    The fewest errors count first, then whole names, then the most popular.
    """
    allowed = errors_allowed(part)
    if not allowed or len(part) > 200:
        return None
    ids = _candidates(trie, part, collections) if trie.up_to else None
    rows = connection.cursor()
    rows.row_factory = None
    rows.execute(
        f"""SELECT {RANKED_COLUMNS} FROM repositories NOT INDEXED WHERE {conditions.sql}
            AND {"1" if ids is None else "id IN (SELECT value FROM json_each(:wanted))"}
            AND {_LONG_ENOUGH} LIMIT 20000""",
        conditions.values | {"wanted": json.dumps(ids), "length": len(part) - allowed},
    )
    known, best = dict[str, tuple[int, bool, str]](), None
    for row_id, name, slug, followers, forks, created_at in rows:
        for text in searched_names(name, slug):
            if text not in known:
                known[text] = _nearest_in(text, part, allowed)
            errors, is_part, meant = known[text]
            if errors <= allowed:
                rank = (errors, is_part, popularity(followers, forks, created_at, row_id), meant)
                best = rank if best is None else min(best, rank)
    return best[-1] if best else None


def _nearest_in(text: str, part: str, allowed: int) -> tuple[int, bool, str]:
    """Find what of a name is nearest to a part: its errors, whether it is words of the name, and what."""
    best = (allowed + 1, False, "")
    for meant in _meant(text, part, allowed):
        errors = OSA.distance(part, meant, score_cutoff=allowed)
        if errors:
            best = min(best, (errors, meant != text, meant))
    return best


def _meant(text: str, part: str, allowed: int) -> list[str]:
    """Return a name, and whatever as many words of it as a part has make, if they are about as long."""
    words = 1 + part.count("-") + part.count(".") + part.count("_")
    shortest, longest = len(part) - allowed, len(part) + allowed
    return [meant for meant in (text, *_runs_of(words).findall(text)) if shortest <= len(meant) <= longest]


@cache
def _runs_of(words: int) -> re.Pattern[str]:
    """Return a pattern for all that so many words of a name make that follow each other, also overlapping."""
    run = r"[-._]".join([r"[^-._]+"] * words)
    return re.compile(rf"(?<![^-._])(?=({run})(?![^-._]))")


def _candidates(trie: Trie, part: str, collections: list[int]) -> list[int]:
    """Collect whose names may be meant: the surest first, of lists that are as sure the short ones."""
    sure, popular = list[list[int]](), list[list[int]]()
    for mark in (MARK, b""):  # as a whole name, as words in one
        begun, before = _begun(trie, part, mark)
        ended, after = _ended(trie, part, mark)
        sure += (begun.ids, ended.ids)
        if before < after:
            sure.append(trie.listed(trie.find(part[before:after].encode()), collections))
        for path in (part[after + 1 :].encode() + mark, mark + part[: max(before - 1, 0)].encode()):
            popular.append(trie.listed(trie.find(path), collections) if path else [])
    ids = dict.fromkeys(chain(*sorted(sure, key=len), *sorted(popular, key=len)))
    return list(ids)[:CANDIDATES]


def _begun(trie: Trie, part: str, mark: bytes) -> tuple[Rare, int]:
    """Find the shortest beginning of a text that few names have, and where it ends."""
    found = trie.find(mark + part.encode() + mark)
    if isinstance(found, Common):
        return Rare([]), len(part)
    return found, len(found.path.strip(MARK).decode(errors="replace"))


def _ended(trie: Trie, part: str, mark: bytes) -> tuple[Rare, int]:
    """Find the shortest end of a text that few names have, and where it begins."""
    for start in range(len(part) - 1, -1, -1):
        found = trie.find(part[start:].encode() + mark)
        if isinstance(found, Rare):
            return found, start
    return Rare([]), 0
