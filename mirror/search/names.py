"""How names are normalised to compare them, how well a name matches a query, and which part of it matches.

A repository is searched by its name and its slug. Its *searched text* is both, normalised, encoded, and
separated by BOUNDARY (``^`` for short): ``^name^``, or ``^name^slug^`` where the two differ. So every kind of
match is a substring: ``flask`` is *in* a name, ``^flask`` *begins* one, ``^flask^`` *is* one.
"""

import re
import unicodedata
from collections.abc import Sequence

BOUNDARY = b"\xff"
"""Stands before and after each name in a searched text. UTF-8 never uses it, so no name contains it."""

EXACT, PREFIX, SUBSTRING = range(3)
"""Match classes: how well a repository matches a query; lower is better."""

PUBLIC, PRIVATE, GONE_PUBLIC, GONE_PRIVATE = COLLECTIONS = range(4)
"""Each repository is in one collection. A node has numbers and a list for each, so all sums are exact."""

Popularity = tuple[int, int, bytes, int]
"""A sort key, see `popularity`."""

_WHITE_SPACE = re.compile(r"\s+")
_ODD = bytes(byte != 10 and not 32 <= byte < 127 for byte in range(256))
_INVERTED = bytes(255 - byte for byte in range(256))


def normalise(text: str) -> str:
    """Return the form in which names are compared: NFKC, case folded, each run of white space one ``-``."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.lower().replace(" ", "-")  # true of most names, and three times as fast
    return _WHITE_SPACE.sub("-", unicodedata.normalize("NFKC", text).casefold())


def normalise_all(texts: Sequence[str]) -> list[str]:
    """Return the normal form of each text: ten times as fast as one by one, if most are ordinary names."""
    joined = "\n".join(texts)
    normal = joined.lower().replace(" ", "-").split("\n")
    if len(normal) != len(texts):  # a text contains a line break
        return list(map(normalise, texts))
    lines = (joined.replace("  ", "\t") + "\n").encode()
    is_odd = lines.translate(_ODD)
    row = at = 0
    while (odd := is_odd.find(1, at)) >= 0:
        row += lines.count(b"\n", at, odd)
        normal[row] = normalise(texts[row])
        at = lines.index(b"\n", odd)
    return normal


def searched_names(name: str, slug: str) -> tuple[str, str]:
    """Return the normalised name and slug of a repository. They may be equal."""
    return _with_slug(name, slug, normalise(name))


def all_searched_names(names: Sequence[str], slugs: Sequence[str]) -> list[tuple[str, str]]:
    """Return `searched_names` of many repositories."""
    # Most slugs are the normal form of the name. Those need no call of a function.
    return [
        (normal, normal) if slug == normal and slug.isascii() else _with_slug(name, slug, normal)
        for name, slug, normal in zip(names, slugs, normalise_all(names), strict=True)
    ]


def _with_slug(name: str, slug: str, normal: str) -> tuple[str, str]:
    if slug == name or (slug == normal and slug.isascii()):
        return normal, normal
    return normal, normalise(slug)


def searched_text(name: str, slug: str) -> bytes:
    """Return the searched text of a repository, such as ``^my-flask^`` or ``^my-flask^flask-2^``."""
    return _searched_text(*searched_names(name, slug))


def searched_texts(names: Sequence[str], slugs: Sequence[str]) -> list[bytes]:
    """Return the searched texts of many repositories, faster than one by one."""
    # Normal forms contain neither a line break nor a carriage return: both are white space.
    texts = [
        f"\n{name}\n" if name == slug else f"\n{name}\n{slug}\n"
        for name, slug in zip(normalise_all(names), normalise_all(slugs), strict=True)
    ]
    return "\r".join(texts).encode().replace(b"\n", BOUNDARY).split(b"\r") if texts else []


def _searched_text(first: str, second: str) -> bytes:
    if first == second:
        return b"".join((BOUNDARY, first.encode(), BOUNDARY))
    return b"".join((BOUNDARY, first.encode(), BOUNDARY, second.encode(), BOUNDARY))


def match_class(names: tuple[str, str], part: str) -> int | None:
    """Return how a normalised query matches a normalised name and slug: EXACT, PREFIX, SUBSTRING or None.

    The empty query matches every name as a SUBSTRING.
    """
    first, second = names
    if part not in first and (first is second or part not in second):
        return None
    if not part:
        return SUBSTRING
    if part in names:
        return EXACT
    return PREFIX if first.startswith(part) or second.startswith(part) else SUBSTRING


def collection_of(is_private: object, deleted_at: object) -> int:
    """Return the collection of a row; both values as SQLite returns them."""
    return (PRIVATE if is_private else PUBLIC) + (GONE_PUBLIC if deleted_at is not None else 0)


def popularity(followers: int | None, forks: int | None, created_at: str | None, row_id: int) -> Popularity:
    """Return a key that sorts the most popular first: most followers, most forks, newest, lowest id.

    An unknown count is treated as 0, an unknown date as the oldest.
    """
    # Keys sort ascending but the newest date comes first: invert each byte, and end with the highest one.
    newest = (created_at or "").encode().translate(_INVERTED) + b"\xff"
    return (-(followers or 0), -(forks or 0), newest, row_id)


def highlight_ranges(text: str, query: str, *, owners: bool = True) -> list[tuple[int, int]]:
    """Return the (start, end) ranges of `text` that match `query`, in order and without overlaps.

    In ``owner/part`` only `part` is highlighted; with `owners` False, as for names of refs, a slash is a part
    of the name. A match that begins or ends inside a letter (``ﬁ`` is compared as ``fi``) covers all of it.
    """
    needle = normalise(query.partition("/")[2] if owners and "/" in query else query)
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
    # Normalising joined letters of several pieces: highlight all or nothing.
    return whole, [(0, len(text))] * len(whole)


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
    if unicodedata.combining(letter):
        return True
    together = unicodedata.normalize("NFKC", before + letter)
    apart = unicodedata.normalize("NFKC", before) + unicodedata.normalize("NFKC", letter)
    return together != apart
