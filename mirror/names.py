"""Names as they are searched: one normal form, and the texts that the index and the scan both look into.

A repository is searched by its name and its slug. Both are normalised, encoded, and put between marks:
``MARK name MARK``, or ``MARK name MARK slug MARK`` where the two differ. A mark is a byte that UTF-8 never
uses, so no name contains it, and three questions become one: a query is *in* a name when it is a substring
of the text, a name *begins* with it when mark + query is, and *is* it when mark + query + mark is.
"""

import re
import unicodedata

MARK = b"\xff"
EXACT, PREFIX, SUBSTRING = range(3)
"""How well a repository matches: lower is better."""

Popularity = tuple[int, int, bytes, int]

_WHITE_SPACE = re.compile(r"\s+")
_INVERTED = bytes(255 - byte for byte in range(256))


def normalise(text: str) -> str:
    """Return the form in which names are compared: NFKC, case folded, each run of white space one ``-``."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WHITE_SPACE.sub("-", text.casefold())


def encoded(text: str) -> bytes:
    """Return normalised text as bytes; a lone surrogate becomes bytes that no stored name has."""
    return text.encode("utf-8", "surrogatepass")


def searched_text(name: str, slug: str) -> bytes:
    """Return what is searched of a repository: its name and its slug between marks."""
    first = encoded(normalise(name))
    second = first if slug == name else encoded(normalise(slug))
    if first == second:
        return b"".join((MARK, first, MARK))
    return b"".join((MARK, first, MARK, second, MARK))


def match_class(text: bytes, query: bytes) -> int | None:
    """Say how an encoded query matches a searched text: EXACT, PREFIX, SUBSTRING, or None.

    An empty one is in all texts alike.
    """
    if query not in text:
        return None
    if not query:
        return SUBSTRING
    begun = MARK + query
    if begun not in text:
        return SUBSTRING
    return EXACT if begun + MARK in text else PREFIX


def popularity(followers: int | None, forks: int | None, created_at: str | None, row_id: int) -> Popularity:
    """Return a key that sorts the most popular first: followers, forks, the newest, then the lowest id.

    What the upstream did not tell counts as none, and as oldest. Texts are inverted byte by byte, with an
    end that sorts last, because a key sorts upwards and the newest comes first.
    """
    newest = encoded(created_at or "").translate(_INVERTED) + b"\xff"
    return (-(followers or 0), -(forks or 0), newest, row_id)
