"""Numbers that depend on their key alone, so that row a million is known without rows before it."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1
_LOW_BITS = 48
_LOW_MASK = (1 << _LOW_BITS) - 1
_ODD = 0x5851F42D4C95
_ODD_INVERSE = pow(_ODD, -1, 1 << _LOW_BITS)


def mix(number: int) -> int:
    """Scatter a number over 64 bits (the finalizer of splitmix64)."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ number >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ number >> 27) * 0x94D049BB133111EB) & _MASK
    return number ^ number >> 31


class Draw:
    """A stream of random choices, always the same for the same key."""

    __slots__ = ("_state",)

    def __init__(self, *key: int) -> None:
        self._state = 0
        for part in key:
            self._state = mix(self._state ^ part)

    def below(self, limit: int) -> int:
        """Give a number from 0 to limit - 1."""
        self._state = mix(self._state)
        return self._state % limit

    def one_in(self, times: int) -> bool:
        """Give True once in so many times."""
        return self.below(times) == 0

    def pick(self, choices: Sequence[T]) -> T:
        """Give one of the choices, all alike."""
        return choices[self.below(len(choices))]

    def early(self, choices: Sequence[T]) -> T:
        """Give one of the choices, the first ones far more often (Zipf's law, nearly)."""
        return choices[self.few(len(choices)) - 1]

    def few(self, most: int) -> int:
        """Give a number from 1 to most whose logarithm is uniform: mostly small, seldom large."""
        return min(most, int((most + 1) ** (self.below(1 << 24) / (1 << 24))))


def hex_digits(*key: object) -> str:
    """Give 40 hexadecimal digits, as a commit has them."""
    return blake2b(repr(key).encode(), digest_size=20).hexdigest()


class Uuids:
    """The uuids of one kind of thing; the number can be read back from the uuid."""

    def __init__(self, seed: int, kind: int) -> None:
        self._key = mix(mix(seed) ^ kind)

    def of(self, number: int) -> str:
        """Give the uuid of a number, in Bitbucket's braces."""
        high = f"{mix(self._key ^ number):016x}{mix(self._key + number):016x}"
        low = (number * _ODD + self._key) & _LOW_MASK
        return f"{{{high[:8]}-{high[8:12]}-4{high[13:16]}-a{high[17:20]}-{low:012x}}}"

    def number(self, uuid: str) -> int | None:
        """Give the number of a uuid (braces or not), or None for a uuid that is not one of these."""
        try:
            low = int(uuid.strip("{}")[-12:], 16)
        except ValueError:
            return None
        number = ((low - self._key) * _ODD_INVERSE) & _LOW_MASK
        return number if self.of(number).strip("{}") == uuid.strip("{}").lower() else None
