"""Correcting typing errors: the name that occurs, and may be shown, nearest to what was typed.

There is no dictionary to keep. Whoever mistypes a name gets some part of it right: its beginning, or what
begins at a third, half or two thirds. These are paths of the index, and the leaf that each of them ends in
lists everybody who has it, its node the most popular. The names found there are compared letter by letter.
In a large file a name may be missed all of whose parts that are right are common.
"""

import json
import sqlite3
from collections.abc import Iterator
from itertools import chain

from mirror.names import MARK, popularity, searched_names
from mirror.search.request import Conditions
from mirror.search.scan import RANKED_COLUMNS
from mirror.search.trie import Common, Rare, Trie

CANDIDATES = 250
"""So many repositories are looked at, at most, in a millisecond or two."""

SWAPPED = 10
"""Up to this length, names with two letters swapped or one too many are looked up as such."""

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
    """Collect whose names share a part with the query; of the lists the short ones first, which say most."""
    lists = list[list[int]]()
    for path in _parts(part):
        for found in trie.along(path):
            if isinstance(found, Rare):
                lists.append(found.ids)
            else:
                lists.extend(trie.listed(found.tallies[key]) for key in collections if key in found.tallies)
    swapped = _swapped(trie, part, collections) if len(part) <= SWAPPED else ()
    ids = dict.fromkeys(chain(swapped, *sorted(lists, key=len)))
    return list(ids)[:CANDIDATES]


def _parts(part: str) -> Iterator[bytes]:
    """Yield the beginning, and what begins further on."""
    yield MARK + part.encode()
    for start in sorted({len(part) // 3, len(part) // 2, len(part) * 2 // 3} - {0}):
        yield part[start:].encode() + MARK


def _swapped(trie: Trie, part: str, collections: list[int]) -> Iterator[int]:
    """Yield some repositories of each name that two swapped letters, or one too many, lead back to."""
    swaps = [part[:at] + part[at + 1] + part[at] + part[at + 2 :] for at in range(len(part) - 1)]
    drops = [part[:at] + part[at + 1 :] for at in range(len(part))]
    for name in dict.fromkeys([*swaps, *drops]):
        found = trie.find(MARK + name.encode() + MARK)
        if isinstance(found, Common):
            for key in collections:
                if key in found.tallies:
                    yield from trie.listed(found.tallies[key])[:1]
        else:
            yield from found.ids[:12]


def distance(one: str, other: str, most: int) -> int:
    """Count the letters to insert, delete, replace or swap with the next; `most` + 1 if there are more."""
    if abs(len(one) - len(other)) > most or len(set(one) ^ set(other)) > 2 * most:
        return most + 1
    before, row = list[int](), list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, met in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != met))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == met:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)
