"""What else one may have meant, when a search finds nothing and no typing error explains it: a shorter part.

The longest beginning and the longest end of what was typed that occur are looked up, which costs an index a
fraction of a millisecond each.
"""

import sqlite3
from collections.abc import Callable, Iterator

import msgspec

from mirror.search import search
from mirror.serve.lookups import Shown

SHORTEST, LONGEST = 4, 40
"""Letters of a query that is helped, from and to."""


class Near(msgspec.Struct, frozen=True):
    """A text that occurs, and in how many repositories' names."""

    text: str
    count: int


def near(connection: sqlite3.Connection, query: str, shown: Shown) -> list[Near]:
    """Return the longest parts that occur of a query that finds nothing."""
    owner, slash, part = query.rpartition("/")
    if not SHORTEST <= len(part) <= LONGEST:
        return []

    def count(text: str) -> int:
        asked = f"{owner}{slash}{text}"
        return search(connection, asked, limit=0, fuzzy=False, **shown).count

    return [Near(f"{owner}{slash}{text}", count(text)) for text in _parts(part, count)]


def _parts(part: str, count: Callable[[str], int]) -> Iterator[str]:
    """Yield the longest beginning and end that occur, if they are long enough to say something."""
    beginning = _longest(part, lambda length: count(part[:length]))
    end = _longest(part, lambda length: count(part[-length:]))
    lengths = {part[:beginning]: beginning, part[len(part) - end :]: end}
    yield from (text for text, length in lengths.items() if length >= SHORTEST - 1)


def _longest(part: str, count: Callable[[int], int]) -> int:
    """Find the greatest length that still occurs; whatever has the longer text has the shorter one too."""
    least, most = 0, len(part) - 1
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if count(middle) else (least, middle - 1)
    return least
