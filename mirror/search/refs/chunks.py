"""Chunks of the lists of the index of refs, and any page of the refs that some of them have."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import NamedTuple

from mirror.search.index.refs.layout import KINDS, NO_END, last_order, unpack_numbers, unpack_orders
from mirror.search.refs.scan import Place


class Chunk(NamedTuple):
    """A part of a list: its name, the number of the list, the order of the first ref, the refs, packed."""

    name: str
    list: int
    start: int
    repositories: bytes
    ages: bytes

    @property
    def size(self) -> int:
        """How many refs it has."""
        return len(self.ages) // 4

    @property
    def end(self) -> int:
        """The order of its last ref."""
        return self.start if len(self.ages) == 4 else last_order(self.repositories, self.ages)

    def places(self, low: int, high: int) -> Iterable[Place]:
        """Return the places of its refs with an order from `low` on, below `high`."""
        orders = unpack_orders(self.repositories, self.ages)
        some = orders[bisect_left(orders, low) : bisect_left(orders, high)]
        return zip(some, repeat(self.list % len(KINDS)), repeat(self.name))


class RareRefs:
    """All refs of a rare path: their chunks, by match class."""

    def __init__(self, chunks: Iterable[tuple[int, Chunk]]) -> None:
        self.chunks = defaultdict[int, list[Chunk]](list)
        for match, chunk in chunks:
            self.chunks[match].append(chunk)

    def upto(self, worst: int) -> Iterator[Chunk]:
        """Yield the chunks of a match class and of better ones."""
        for match, chunks in self.chunks.items():
            if match <= worst:
                yield from chunks

    def refs(self, worst: int) -> int:
        """Count the refs of a match class and of better ones."""
        return sum(chunk.size for chunk in self.upto(worst))

    @property
    def repositories(self) -> int:
        """How many repositories have any of the refs."""
        found = set[int]()
        for chunks in self.chunks.values():
            for chunk in chunks:
                found.update(unpack_numbers(chunk.repositories))
        return len(found)


def page_of(
    chunks: Sequence[Chunk], gone: set[Place], joined: Sequence[Place], low: int, high: int
) -> list[Place]:
    """Return refs `low` to `high` of some chunks in order, without those `gone`, with those `joined`.

    Chunks that end above the page are counted, those that begin below it are left out.
    """
    first, last = max(low - len(joined), 0), high + len(gone)
    ends = [chunk.end for chunk in chunks]
    begin, end = _begin(chunks, first), _end(chunks, ends, last)
    places = list[Place]()
    counted = 0
    for chunk, its_end in zip(chunks, ends, strict=True):
        if its_end < begin:
            counted += chunk.size
        elif chunk.start <= end:
            places += chunk.places(0, end + 1)
    if gone:
        counted -= sum(order < begin for order, _, _ in gone.difference(places))
        places = [place for place in places if place not in gone]
    return sorted([*places, *joined])[low - counted : high - counted]


def _begin(chunks: Iterable[Chunk], count: int) -> int:
    """Return an order with at most `count` refs of some chunks before it, the highest that is easily told."""
    if not count:
        return 0
    for chunk in sorted(chunks, key=attrgetter("start")):
        if chunk.size > count:
            return chunk.start
        count -= chunk.size
    return NO_END


def _end(chunks: Iterable[Chunk], ends: Iterable[int], count: int) -> int:
    """Return an order with at least `count` refs of some chunks up to it, the lowest that is easily told."""
    for end, chunk in sorted(zip(ends, chunks, strict=True), key=itemgetter(0)):
        if chunk.size >= count:
            return end
        count -= chunk.size
    return NO_END
