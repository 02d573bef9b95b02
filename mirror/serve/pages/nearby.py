"""What else one may have meant, when a search finds nothing: letters swapped or too many, a shorter part.

The search itself corrects whole names. Whoever mistypes a part of a name is helped here: each text that one
slip of the fingers makes of another is looked up as it is, which costs an index a fraction of a millisecond.
"""

import sqlite3
from collections.abc import Callable, Iterator

import msgspec

from mirror.search import search

SHORTEST, LONGEST, MOST = 4, 40, 3
"""Letters of a query that is helped, from and to; and how many texts are offered."""


class Near(msgspec.Struct, frozen=True):
    """A text that occurs, and in how many repositories' names."""

    text: str
    count: int


def near(connection: sqlite3.Connection, query: str, *, visible_private: bool) -> list[Near]:
    """Return what is near a query that finds nothing, the most frequent first, else the longest parts."""
    owner, slash, part = query.rpartition("/")
    if not SHORTEST <= len(part) <= LONGEST:
        return []

    def count(text: str) -> int:
        asked = f"{owner}{slash}{text}"
        return search(connection, asked, limit=0, visible_private=visible_private, fuzzy=False).count

    found = [Near(f"{owner}{slash}{text}", number) for text in _slips(part) if (number := count(text))]
    if found:
        return sorted(found, key=lambda one: (-one.count, one.text))[:MOST]
    return [Near(f"{owner}{slash}{text}", count(text)) for text in _parts(part, count)]


def _slips(part: str) -> Iterator[str]:
    """Yield each text that two letters swapped, or one letter twice or too many, would have made this of."""
    swaps = [part[:at] + part[at + 1] + part[at] + part[at + 2 :] for at in range(len(part) - 1)]
    drops = [part[:at] + part[at + 1 :] for at in range(len(part))]
    yield from (text for text in dict.fromkeys([*swaps, *drops]) if text != part)


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
