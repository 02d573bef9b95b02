"""Suffixes of many texts, followed side by side: the step that building and growing share.

A suffix is known by where in the text it begins and by whose it is. Those that agree so far are a group;
a step divides each group by the byte that follows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint32]

_LOW = np.uint64(0xFFFFFFFF)


def divided(
    text: NDArray[np.uint8], at: Numbers, of: Numbers, group: NDArray[np.uint64], depth: int
) -> tuple[Numbers, Numbers, NDArray[np.int64]]:
    """Divide groups of suffixes by their byte number `depth`, counted from 0.

    `group` numbers the group that each is in, in rising order. Returns the suffixes in their new order, in
    which those of a group keep the order they came in, and where each new group starts.
    """
    key = group << np.uint64(8) | text[at + np.uint32(depth)]
    key <<= np.uint64(32)
    key |= np.arange(at.size, dtype=np.uint64)
    key.sort(kind="stable")  # which is quick with what is nearly in order
    order = (key & _LOW).astype(np.uint32)
    key >>= np.uint64(32)
    return at[order], of[order], np.flatnonzero(first_of_equals(key))


def kept_groups(
    at: Numbers, of: Numbers, starts: NDArray[np.int64], kept: NDArray[np.bool_]
) -> tuple[Numbers, Numbers, NDArray[np.uint64]]:
    """Leave out the groups that are not followed any further; returns each suffix's group, too."""
    sizes = np.diff(starts, append=at.size)
    each = np.repeat(kept, sizes)
    return at[each], of[each], np.repeat(np.arange(np.count_nonzero(kept), dtype=np.uint64), sizes[kept])


def cut_out(text: NDArray[np.uint8], at: Numbers, length: int) -> list[bytes]:
    """Cut out what begins at some places."""
    cut = text[at[:, None] + np.arange(length, dtype=np.uint32)].tobytes()
    return [cut[begin : begin + length] for begin in range(0, len(cut), length)]


def first_of_equals(key: NDArray[Any]) -> NDArray[np.bool_]:
    """Say of each key whether it differs from the one before."""
    first = np.ones(key.size, dtype=bool)
    np.not_equal(key[1:], key[:-1], out=first[1:])
    return first
