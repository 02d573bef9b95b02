"""What the processes of one server tell of together: numbers and a text in memory that they share.

The memory is made before the processes are forked. Each counts in a part of its own, so that nobody waits for
a lock, and one that is killed leaves none behind. A process that takes its place counts on in its part.
"""

import mmap
import struct
import zlib

MOST_ROWS = 400
MOST_COLUMNS = 16
LONGEST_KEY = 246
"""Bytes of a key. What is longer is not counted, nor what comes after MOST_ROWS."""

_NUMBERS = 8 * MOST_COLUMNS
_ROW = _NUMBERS + 8 + 248
"""Bytes of a row: its numbers, the length of its key, its key; a multiple of eight."""

_LENGTH = struct.Struct("<q")


class SharedNumbers:
    """Rows of numbers under a key, counted by several processes; each of them reads the sums of all."""

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self._bytes = memoryview(mmap.mmap(-1, processes * MOST_ROWS * _ROW))
        self._numbers = self._bytes.cast("d")
        self.count_in(0)

    def count_in(self, part: int) -> None:
        """Count in a part from now on, on top of what is there."""
        self._rows = dict(self._used(part))
        self._next = part * MOST_ROWS + len(self._rows)
        self._end = (part + 1) * MOST_ROWS

    def add(self, key: bytes, column: int, amount: float = 1.0) -> None:
        """Add to a number of this process."""
        row = self._rows.get(key)
        if row is None:
            row = self._new_row(key)
        if row >= 0:
            self._numbers[row * _ROW // 8 + column] += amount

    def sums(self) -> dict[bytes, list[float]]:
        """Return the numbers of all processes together, by key."""
        found = dict[bytes, list[float]]()
        for part in range(self._processes):
            for key, row in self._used(part):
                start = row * _ROW // 8
                others = found.get(key, [0.0] * MOST_COLUMNS)
                own = self._numbers[start : start + MOST_COLUMNS]
                found[key] = [one + other for one, other in zip(others, own, strict=True)]
        return found

    def _used(self, part: int) -> list[tuple[bytes, int]]:
        """Return the keys of a part with their rows."""
        found = list[tuple[bytes, int]]()
        for row in range(part * MOST_ROWS, (part + 1) * MOST_ROWS):
            at = row * _ROW + _NUMBERS
            (length,) = _LENGTH.unpack_from(self._bytes, at)
            if not length:
                break
            found.append((bytes(self._bytes[at + 8 : at + 8 + length]), row))
        return found

    def _new_row(self, key: bytes) -> int:
        """Begin a row; -1 where there is no room for it. The length comes last: with it the row counts."""
        if len(key) > LONGEST_KEY or self._next == self._end:
            return -1
        at = self._next * _ROW + _NUMBERS
        self._bytes[at + 8 : at + 8 + len(key)] = key
        _LENGTH.pack_into(self._bytes, at, len(key))
        self._rows[key] = self._next
        self._next += 1
        return self._rows[key]


class SharedText:
    """A text that holds until a moment of the monotonic clock, which all processes of a machine share."""

    _HEAD = struct.Struct("<dII")

    def __init__(self, most: int = 1_000_000) -> None:
        self._memory = memoryview(mmap.mmap(-1, self._HEAD.size + most))

    def write(self, text: bytes, until: float) -> None:
        """Keep a text; one that is too long is not kept."""
        if len(text) <= len(self._memory) - self._HEAD.size:
            head = self._HEAD.pack(until, len(text), zlib.crc32(text))
            self._memory[: len(head) + len(text)] = head + text

    def read(self, now: float) -> bytes | None:
        """Return the text; None if there is none, if it holds no more, or if another one is being written."""
        until, length, checksum = self._HEAD.unpack_from(self._memory)
        text = bytes(self._memory[self._HEAD.size : self._HEAD.size + length])
        return text if now < until and zlib.crc32(text) == checksum else None
