"""Correcting typing errors: the name that occurs, and may be shown, nearest to what was typed.

There is no dictionary to keep. Before its first error a name is typed right, and after its last one: so it
is in the leaf of the beginning, if the error comes after that, or in the leaf of the end, if it comes
before; with an error on either side it is in the leaf of the middle. Where all that is right is still in
many names, only the most popular of these are looked at.
"""

import json
import sqlite3
from itertools import chain

from mirror.names import MARK, popularity, searched_names
from mirror.search.request import Conditions
from mirror.search.scan import RANKED_COLUMNS
from mirror.search.trie import Common, Rare, Trie

CANDIDATES = 300
"""So many repositories are looked at, at most, in a millisecond or two."""

_ABOUT_AS_LONG = """(abs(length(name) - :length) <= :allowed OR abs(length(slug) - :length) <= :allowed)"""


def errors_allowed(part: str) -> int:
    """Return how many errors are corrected in a text of this length: none, one or two."""
    return 0 if len(part) < 3 else 1 if len(part) < 5 else 2


def nearest_name(
    connection: sqlite3.Connection, trie: Trie, part: str, collections: list[int], conditions: Conditions
) -> str | None:
    """Find the name with the fewest errors between it and a normalised query; the most popular of several."""
    allowed = errors_allowed(part)
    if not allowed or len(part) > 200:
        return None
    ids = _candidates(trie, part, collections) if trie.up_to else None
    rows = connection.cursor()
    rows.row_factory = None
    rows.execute(
        f"""SELECT {RANKED_COLUMNS} FROM repositories NOT INDEXED WHERE {conditions.sql}
            AND {"1" if ids is None else "id IN (SELECT value FROM json_each(:wanted))"}
            AND {_ABOUT_AS_LONG} LIMIT 20000""",
        conditions.values | {"wanted": json.dumps(ids), "length": len(part), "allowed": allowed},
    )
    known, best = dict[str, int](), None
    for row_id, name, slug, followers, forks, created_at in rows:
        for text in searched_names(name, slug):
            if text not in known:
                known[text] = distance(part, text, allowed)
            if 0 < known[text] <= allowed:
                rank = (known[text], popularity(followers, forks, created_at, row_id), text)
                best = rank if best is None else min(best, rank)
    return best[2] if best else None


def _candidates(trie: Trie, part: str, collections: list[int]) -> list[int]:
    """Collect whose names may be meant: the surest first, of lists that are as sure the short ones."""
    begun, before = _begun(trie, part)
    ended, after = _ended(trie, part)
    sure = [begun.ids, ended.ids]
    if before < after:
        sure.append(trie.listed(trie.find(part[before:after].encode()), collections))
    popular = [
        trie.listed(trie.find(path), collections)
        for path in (part[after + 1 :].encode() + MARK, MARK + part[: max(before - 1, 0)].encode())
    ]
    ids = dict.fromkeys(chain(*sorted(sure, key=len), *sorted(popular, key=len)))
    return list(ids)[:CANDIDATES]


def _begun(trie: Trie, part: str) -> tuple[Rare, int]:
    """Find the shortest beginning of a text that few names have, and where it ends."""
    found = trie.find(MARK + part.encode() + MARK)
    if isinstance(found, Common):
        return Rare([]), len(part)
    return found, len(found.path.strip(MARK).decode(errors="replace"))


def _ended(trie: Trie, part: str) -> tuple[Rare, int]:
    """Find the shortest end of a text that few names have, and where it begins."""
    for start in range(len(part) - 1, -1, -1):
        found = trie.find(part[start:].encode() + MARK)
        if isinstance(found, Rare):
            return found, start
    return Rare([]), 0


def distance(one: str, other: str, most: int) -> int:
    """Count the letters to insert, delete, replace or swap with the next; `most` + 1 if there are more."""
    if abs(len(one) - len(other)) > most or len(set(one) ^ set(other)) > 2 * most:
        return most + 1
    far = most + 1
    before, row = list[int](), [min(place, far) for place in range(len(other) + 1)]
    for i, letter in enumerate(one, 1):
        earlier, before, row = before, row, [far] * (len(other) + 1)
        if i <= most:
            row[0] = i
        for j in range(max(1, i - most), min(len(other), i + most) + 1):  # further off, it costs more
            met = other[j - 1]
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != met))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == met:
                cost = min(cost, earlier[j - 2] + 1)
            row[j] = cost
        if min(row) > most:
            return far
    return min(row[-1], far)
