"""The normal form in which names are compared, and how well a name matches a query.

A repository is searched by its name and its slug. Its *searched text* is both, normalised, encoded, and
separated by BOUNDARY (``^`` for short): ``^name^``, or ``^name^slug^`` where the two differ. So every kind of
match is a substring: ``flask`` is *in* a name, ``^flask`` *begins* one, ``^flask^`` *is* one.
"""

import re
import unicodedata

BOUNDARY = b"\xff"
"""Stands before and after each name in a searched text. UTF-8 never uses it, so no name contains it."""

EXACT, PREFIX, SUBSTRING = range(3)
"""Match classes: how well a repository matches a query; lower is better."""

Popularity = tuple[int, int, bytes, int]
"""A sort key, see `popularity`."""

_WHITE_SPACE = re.compile(r"\s+")
_INVERTED = bytes(255 - byte for byte in range(256))


def normalise(text: str) -> str:
    """Return the form in which names are compared: NFKC, case folded, each run of white space one ``-``."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.lower().replace(" ", "-")  # true of most names, and three times as fast
    return _WHITE_SPACE.sub("-", unicodedata.normalize("NFKC", text).casefold())


def searched_names(name: str, slug: str) -> tuple[str, str]:
    """Return the normalised name and slug of a repository. They may be equal."""
    first = normalise(name)
    if slug == name or (slug == first and slug.isascii()):
        return first, first
    return first, normalise(slug)


def searched_text(name: str, slug: str) -> bytes:
    """Return the searched text of a repository, such as ``^my-flask^`` or ``^my-flask^flask-2^``."""
    first, second = searched_names(name, slug)
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


def popularity(followers: int | None, forks: int | None, created_at: str | None, row_id: int) -> Popularity:
    """Return a key that sorts the most popular first: most followers, most forks, newest, lowest id.

    An unknown count is treated as 0, an unknown date as the oldest.
    """
    # Keys sort ascending but the newest date comes first: invert each byte, and end with the highest one.
    newest = (created_at or "").encode().translate(_INVERTED) + b"\xff"
    return (-(followers or 0), -(forks or 0), newest, row_id)
