"""Where a searched text belongs in the trie: what building and growing must come to, and are checked by."""

from collections.abc import Container
from typing import NamedTuple

from mirror.trie import END, SHORTEST_LISTED


class Places(NamedTuple):
    """The common paths that a text has, the rare ones below them, and whether it is in a crowd.

    A text is in a crowd when it is common as a whole: then one list holds all who share it, and the ends
    of its suffixes are not listed once more.
    """

    common: set[bytes]
    rare: set[bytes]
    crowded: bool


def walk(text: bytes, common: Container[bytes]) -> Places:
    """Follow every suffix of a text from the root down to the first path that is not common.

    Rare paths that end with END are yet without their chunk.
    """
    passed, reached = {b""}, set[bytes]()
    crowded = False
    length = len(text)
    for start in range(length):
        end = start + 1
        while end <= length and (path := text[start:end]) in common:
            passed.add(path)
            end += 1
        if end <= length:
            reached.add(path)
        elif start == 0:
            crowded = True
        elif not crowded and length - start >= SHORTEST_LISTED:
            reached.add(text[start:] + END)
    return Places(passed, reached, crowded)
