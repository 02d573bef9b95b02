"""A listing kept in order while its rows change: what lets any page be cut out at once."""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# Number and key in one integer compare faster than a tuple; there are fewer than 2**24 repositories.
NUMBER_BITS = 24


class Order:
    """Numbers of repositories sorted by a key that is different for each of them."""

    __slots__ = ("_key", "_numbers")

    def __init__(self, numbers: Iterable[int], key: Callable[[int], Any]) -> None:
        self._key = key
        self._numbers = array("l", sorted(numbers, key=key))

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __getitem__(self, cut: slice) -> "array[int]":
        return self._numbers[cut]

    def add(self, number: int) -> None:
        """Put a number where its key belongs."""
        self._numbers.insert(self.place(self._key(number)), number)

    def drop(self, number: int) -> None:
        """Take a number out; its key must still be the one it was added with."""
        place = self.place(self._key(number))
        if self._numbers[place] != number:
            raise LookupError(f"repository {number} is not where its key belongs")
        del self._numbers[place]

    def sort(self, numbers: Iterable[int]) -> list[int]:
        """Give some of the numbers in this order."""
        return sorted(numbers, key=self._key)

    def place(self, key: Any) -> int:
        """Give the position of the first number whose key is not below this one."""
        return bisect_left(self._numbers, key, key=self._key)
