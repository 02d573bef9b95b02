"""Lay pending rows over the arrays of the index, which have them as they were."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror.search.names import COLLECTIONS
from mirror.search.pending import PendingRows
from mirror.search.segments import Texts


def overlaid(column: NDArray[Any], name: str, pending: PendingRows) -> NDArray[Any]:
    """Return a column with the values that pending rows have now; it is as long as the highest id wants."""
    lists = [(_array(texts, "ids"), _array(texts, name)) for texts in _all(pending)]
    size = max([column.size, *(int(ids.max()) + 1 for ids, _ in lists)])
    latest = np.zeros(size, column.dtype)
    latest[: column.size] = column
    for ids, values in lists:
        latest[ids] = values
    return latest


def overlay_names(named: NDArray[np.bool_], path: bytes, pending: PendingRows) -> None:
    """Correct which repositories have a path in their text, by id, for the pending ones."""
    for texts in _all(pending):
        ids = _array(texts, "ids")
        named[ids] = False
        named[ids[_holding(texts, path)]] = True


def _all(pending: PendingRows) -> Iterator[Texts]:
    """Yield the texts of all segments, the oldest first, so that what supersedes others comes later."""
    for place in pending.segments:
        yield from place.segment.listed(COLLECTIONS)


def _array(texts: Texts, name: str) -> NDArray[Any]:
    column = texts.columns[name]
    return np.frombuffer(column, column.typecode)


def _holding(texts: Texts, path: bytes) -> NDArray[np.int64]:
    """Return the numbers of the texts that contain a path, as `holding` does; some may repeat."""
    if path not in texts.texts:  # most often, and told in a tenth of the time
        return np.empty(0, np.int64)
    data = np.frombuffer(texts.texts, np.uint8)
    at = np.flatnonzero(data[: data.size - len(path) + 1] == path[0])
    for offset, byte in enumerate(path[1:], 1):
        at = at[data[at + offset] == byte]
    return np.searchsorted(_array(texts, "starts"), at, side="right") - 1
