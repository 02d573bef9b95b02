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
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.lower().replace(" ", "-")  # what most names are, three times as fast
    return _WHITE_SPACE.sub("-", unicodedata.normalize("NFKC", text).casefold())


def searched_names(name: str, slug: str) -> tuple[str, str]:
    """Return what is searched of a repository: its normalised name and slug, which may be equal."""
    first = normalise(name)
    if slug == name or (slug == first and slug.isascii()):
        return first, first
    return first, normalise(slug)


def searched_text(name: str, slug: str) -> bytes:
    """Return what is searched of a repository in one piece: its normalised names between marks."""
    first, second = searched_names(name, slug)
    if first == second:
        return b"".join((MARK, first.encode(), MARK))
    return b"".join((MARK, first.encode(), MARK, second.encode(), MARK))


def match_class(names: tuple[str, str], part: str) -> int | None:
    """Say how a normalised query matches the searched names: EXACT, PREFIX, SUBSTRING, or None.

    An empty one is in all names alike.
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
    """Return a key that sorts the most popular first: followers, forks, the newest, then the lowest id.

    What the upstream did not tell counts as none, and as oldest. Texts are inverted byte by byte, with an
    end that sorts last, because a key sorts upwards and the newest comes first.
    """
    newest = (created_at or "").encode().translate(_INVERTED) + b"\xff"
    return (-(followers or 0), -(forks or 0), newest, row_id)
