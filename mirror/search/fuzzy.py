"""Correcting typing errors: the name that occurs, and may be shown, nearest to what was typed.

There is no dictionary to keep. Whoever mistypes a name gets its beginning, its end or its middle right;
those are paths of the index, whose lists are short or hold the best repositories. The names found there are
compared letter by letter. In a large file a name may be missed that shares these parts with hundreds of more
popular ones.
"""

import json
import sqlite3
from collections.abc import Iterator

from mirror.names import MARK, popularity, searched_names
from mirror.search.request import Conditions
from mirror.search.scan import RANKED_COLUMNS
from mirror.search.trie import Common, Rare, Trie

CANDIDATES = 500
"""So many repositories are looked at, at most; it bounds the time to a few milliseconds."""

MANY = 120
"""A path with more repositories than this is the last that is taken in its direction, by its best alone."""


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
            AND {"1" if ids is None else "id IN (SELECT value FROM json_each(:wanted))"} LIMIT 20000""",
        conditions.values | {"wanted": json.dumps(ids)},
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
    """Collect whose names share an end or the middle with the query, the longest shares first."""
    ids = dict.fromkeys(_swapped(trie, part, collections))
    for paths in _directions(part):
        lists = list[list[int]]()
        for path in paths:
            found = trie.find(path)
            if isinstance(found, Rare):
                if found.ids not in lists:
                    lists.append(found.ids)
                continue
            tallies = [tally for key, tally in found.tallies.items() if key in collections]
            lists.extend(trie.listed(tally) for tally in tallies)
            if sum([tally.count for tally in tallies]) > MANY:
                break
        for found_ids in lists[:6]:
            ids.update(dict.fromkeys(found_ids[:MANY]))
    return list(ids)[:CANDIDATES]


def _swapped(trie: Trie, part: str, collections: list[int]) -> Iterator[int]:
    """Yield some repositories of each name that two swapped letters, or one too many, lead back to."""
    swaps = [part[:at] + part[at + 1] + part[at] + part[at + 2 :] for at in range(len(part) - 1)]
    drops = [part[:at] + part[at + 1 :] for at in range(len(part))]
    for name in dict.fromkeys([*swaps, *drops][:40]):
        found = trie.find(MARK + name.encode() + MARK)
        if isinstance(found, Common):
            for key in collections:
                if key in found.tallies:
                    yield from trie.listed(found.tallies[key])[:1]
        else:
            yield from found.ids[:12]


def _directions(part: str) -> Iterator[list[bytes]]:
    """Yield the paths to try: beginnings, ends, then the middle, each from the longest on."""
    encoded, shortest = [letter.encode() for letter in part], max(1, len(part) // 3)
    longest = min(len(part) - 1, 12)
    yield [MARK + b"".join(encoded[:size]) for size in range(longest, shortest - 1, -1)]
    yield [b"".join(encoded[-size:]) + MARK for size in range(longest, shortest - 1, -1)]
    if len(part) >= 6:
        third = len(part) // 3
        yield [b"".join(encoded[third - 1 : -third]), b"".join(encoded[third : len(part) - third + 1])]


def distance(one: str, other: str, most: int) -> int:
    """Count the letters to insert, delete, replace or swap with the next; `most` + 1 if there are more."""
    if abs(len(one) - len(other)) > most:
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
