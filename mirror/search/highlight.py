"""Which parts of a name to highlight, as ranges in the text as it is written, not as it is compared."""

import unicodedata

from mirror.search.names import normalise


def highlight_ranges(text: str, query: str) -> list[tuple[int, int]]:
    """Return the (start, end) ranges of `text` that match `query`, in order and without overlaps.

    Of ``owner/part`` only `part` is looked for. A match that begins or ends inside a letter of the text
    (``ﬁ`` is compared as ``fi``) covers the whole letter.
    """
    needle = normalise(query.partition("/")[2] if "/" in query else query)
    if not needle:
        return []
    compared, origins = _normalised_with_origins(text)
    ranges = list[tuple[int, int]]()
    at = compared.find(needle)
    while at >= 0:
        start, end = origins[at][0], origins[at + len(needle) - 1][1]
        if ranges and start <= ranges[-1][1]:
            start = ranges.pop()[0]
        ranges.append((start, end))
        at = compared.find(needle, at + len(needle))
    return ranges


def _normalised_with_origins(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the normalised text and, for each of its characters, the range of `text` it came from."""
    compared, origins = list[str](), list[tuple[int, int]]()
    for start, end in _pieces(text):
        piece = normalise(text[start:end])
        compared.append(piece)
        origins.extend([(start, end)] * len(piece))
    joined = "".join(compared)
    whole = normalise(text)
    if joined == whole:
        return joined, origins
    return whole, [(0, len(text))] * len(
        whole
    )  # normalisation reached across pieces: highlight all or nothing


def _pieces(text: str) -> list[tuple[int, int]]:
    """Return the ranges of a text that can be normalised alone: letters with accents, runs of white space."""
    pieces = list[tuple[int, int]]()
    start = 0
    for at in range(1, len(text) + 1):
        if at == len(text) or not _belong_together(text[start:at], text[at]):
            pieces.append((start, at))
            start = at
    return pieces


def _belong_together(before: str, letter: str) -> bool:
    """Return whether a letter must be normalised together with the text before it."""
    if before[-1].isspace() and letter.isspace():
        return True
    if before.isascii() and letter.isascii():
        return False
    together = unicodedata.normalize("NFKC", before + letter)
    apart = unicodedata.normalize("NFKC", before) + unicodedata.normalize("NFKC", letter)
    return unicodedata.combining(letter) > 0 or together != apart
