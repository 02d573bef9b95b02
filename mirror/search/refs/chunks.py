"""Chunks of the lists of the index of refs, and any page of the refs that some of them have."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise, repeat
from typing import NamedTuple

from mirror.search.index.refs.layout import KINDS, NO_END, unpack_numbers, unpack_orders
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


def orders_of(chunks: Sequence[Chunk]) -> list[int]:
    """Return the orders of all refs of some chunks, one chunk after the other."""
    repositories, ages = (chunk.repositories for chunk in chunks), (chunk.ages for chunk in chunks)
    return unpack_orders(b"".join(repositories), b"".join(ages))


def page_of(
    chunks: Sequence[Chunk], gone: set[Place], joined: Sequence[Place], low: int, high: int
) -> list[Place]:
    """Return refs `low` to `high` of some chunks in order, without those `gone`, with those `joined`.

    All orders are sorted as plain numbers, to learn between which the page is.
    """
    chunks = _with_first(chunks, high + len(gone))
    orders = orders_of(chunks)
    ranked = sorted(orders)
    first, last = max(low - len(joined), 0), min(high + len(gone), len(ranked))
    begin = ranked[first] if first < len(ranked) else NO_END
    end = ranked[last - 1] if last else -1
    upto = list(accumulate(chunk.size for chunk in chunks))
    near = [at for at, order in enumerate(orders) if begin <= order <= end]
    its = [(orders[at], chunks[bisect_right(upto, at)]) for at in near]
    places = {(order, chunk.list % len(KINDS), chunk.name) for order, chunk in its} - gone
    before = bisect_left(ranked, begin) - sum(order < begin for order, _, _ in gone)
    return sorted([*places, *joined])[low - before : high - before]


def _with_first(chunks: Sequence[Chunk], count: int) -> Sequence[Chunk]:
    """Return the chunks that may have any of the first `count` refs; those of a list follow one another.

    All refs of a chunk are before the next chunk of its list.
    """
    pairs = pairwise(chunks)
    for end, size in sorted((after.start, chunk.size) for chunk, after in pairs if chunk[:2] == after[:2]):
        count -= size
        if count <= 0:
            return [chunk for chunk in chunks if chunk.start < end]
    return chunks
