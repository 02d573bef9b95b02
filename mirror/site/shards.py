"""What the visitor's browser searches: a sorted list of texts, cut into small files by its first letters.

As in the mirror's own index (`docs/search.md`), a text of a name is ``^name^``, and each of its suffixes
leads to the repository. A beginning of more than RARE repositories is a *node*, with their number and the
best of them; the first one below it that is not, a *leaf*, with all of them. Texts of owners are
``$owner^``, as a whole alone; suffixes of names follow that of an owner of many. Nodes and leaves are
sorted, and cut into shards; the directory has the first text of each. So a question is one look into the
directory, and one shard for each text that it asks about. A shard says where the next begins, so that a
browser notices when its directory is an older one. Texts are written as the bytes of UTF-8, one letter for
each, so that Python and the browser sort alike.
"""

import gzip
import json
import sqlite3
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from mirror.queries.rows import fetch
from mirror.readable import visible
from mirror.search.names import BOUNDARY, normalise, popularity, searched_names
from mirror.site.addresses import Places

RARE, RARE_OWNER = 150, 2_000
"""The most repositories of a leaf: of names, and of owners."""
BEST = 50
"""How many repositories a node names."""
DEEPEST = 64
"""The longest text of a node or a leaf; a leaf at this depth names no more than RARE_OWNER repositories."""

SHARD, SHORTEST, CUT_AT = 28_000, 8_000, 61
"""How large a shard may become and how large it has to be, in letters before compression. Between the two it
ends before a text whose checksum says so: where one text more or less does not move the other ends."""

WITHOUT_SERVER = 5_000
"""How many repositories are searched from the disk too, where a browser reads scripts but no other files."""

DIRECTORY, SCRIPT = "search/directory.json.gz", "search/names.js"
_NAME, _OWNER = BOUNDARY.decode("latin-1"), "\xfe"
_PLACE_BITS = 20
_LAST_CASED = 0x20000
"""Unicode has no letters with a case from here on."""

Row = list[Any]
"""Of a repository: full name, name if it is not the slug, followers, forks, file if it does not follow from
the full name, and both names as they are shown, if hidden characters are written out. Without empty ends."""


class Entry(NamedTuple):
    """A node, or a leaf: then `matches` is None, or -1 where it does not name all repositories.

    `ranks` are places in the order of popularity.
    """

    text: str
    matches: int | None
    ranks: list[int]


class Named(NamedTuple):
    """All repositories, the most popular first; each with the texts that lead to it."""

    rows: list[Row]
    names: list[tuple[str, ...]]
    owners: list[str]


def read_names(connection: sqlite3.Connection, places: Places) -> Named:
    """Read what is searched from a file of public rows."""
    found = fetch(
        connection,
        """SELECT r.id, r.full_name, r.name, r.slug, r.followers_count, r.forks_count, r.created_at,
               u.username FROM repositories r JOIN users u ON u.id = r.owner_id""",
    )
    found.sort(key=lambda row: popularity(row[4], row[5], row[6], row[0]))
    named = Named([], [], [])
    for row_id, full_name, name, slug, followers, forks, _, username in found:
        named.rows.append(_row(full_name, name, slug, followers, forks, places.repository(full_name, row_id)))
        named.names.append(tuple(dict.fromkeys(map(_letters, searched_names(name, slug)))))
        named.owners.append(_letters(normalise(username or "")))
    return named


def _letters(text: str) -> str:
    return text.encode().decode("latin-1")


def _row(full_name: str, name: str, slug: str, followers: int, forks: int, place: str) -> Row:
    owner, _, rest = full_name.partition("/")
    plain = f"r/{owner[:2].rstrip('.')}/{owner}/{rest}.html"
    shown = ["" if visible(one) == one else visible(one) for one in (full_name, name)]
    row: Row = [
        full_name,
        "" if name == slug else name,
        followers or 0,
        forks or 0,
        "" if place == plain else place,
    ]
    row += shown
    while not row[-1]:
        row.pop()
    return row


def files(named: Named) -> Iterator[tuple[str, bytes]]:
    """Yield each file of the search, and its bytes.

    Each shard comes after the one that begins where it ends, and the directory last: while they are being
    replaced, and by a directory of before, a browser that follows the ends finds every text.
    """
    shards = list(_shards(named))
    starts = [shard[0].text for shard in shards]
    for shard, until in zip(reversed(shards), [None, *reversed(starts[1:])], strict=True):
        yield shard_file(shard[0].text), _packed({"until": until, **_as_json(shard, named.rows)})
    about = {"repositories": len(named.rows), "folds": folds()}
    if len(named.rows) <= WITHOUT_SERVER:
        text = json.dumps({**about, "rows": named.rows}, separators=(",", ":"))
        yield SCRIPT, f"globalThis.mirrorNames = {text};\n".encode()
    yield DIRECTORY, _packed({**about, "large": large_owners(named), "starts": starts})


def shard_file(start: str) -> str:
    """Return the file of the shard that begins with a text."""
    return f"search/n{start.encode('latin-1').hex()}.json.gz"


@cache
def folds() -> dict[str, str]:
    """Return the letters whose case Python folds otherwise than a browser writes them small."""
    letters = (chr(code) for code in range(_LAST_CASED) if not 0xD800 <= code < 0xE000)
    return {
        letter: letter.casefold()
        for letter in letters
        if letter.casefold() != letter.lower() and unicodedata.normalize("NFKC", letter) == letter
    }


def large_owners(named: Named) -> dict[str, int]:
    """Return the owners of more repositories than a leaf has: these are searched by texts of their own."""
    return {owner: count for owner, count in Counter(named.owners).items() if count > RARE_OWNER}


def _packed(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return gzip.compress(text.encode(), mtime=0)


def _as_json(shard: list[Entry], rows: list[Row]) -> dict[str, Any]:
    """Return a shard with each repository once, and nodes and leaves that refer to it."""
    places = {
        rank: place for place, rank in enumerate(dict.fromkeys(rank for one in shard for rank in one.ranks))
    }
    entries = [[one.text, one.matches, [places[rank] for rank in one.ranks]] for one in shard]
    return {"rows": [rows[rank] for rank in places], "entries": entries}


def _shards(named: Named) -> Iterator[list[Entry]]:
    """Cut the nodes and leaves into shards."""
    shard, size, seen = list[Entry](), 0, set[int]()
    for entry in _entries(named):
        ends = size > SHORTEST and zlib.crc32(entry.text.encode("latin-1")) % CUT_AT == 0
        if shard and (ends or size > SHARD):
            yield shard
            shard, size, seen = [], 0, set()
        shard.append(entry)
        fresh = [rank for rank in entry.ranks if rank not in seen]
        seen.update(fresh)
        size += len(entry.text) + 4 * len(entry.ranks) + sum(len(named.rows[rank][0]) + 16 for rank in fresh)
    if shard:
        yield shard


def _entries(named: Named) -> Iterator[Entry]:
    """Yield all nodes and leaves in order. A suffix is a number: its text's, and its place in the text."""
    texts, ranks, suffixes, large = list[str](), list[int](), list[int](), large_owners(named)
    for rank, (names, owner) in enumerate(zip(named.names, named.owners, strict=True)):
        for text in names:
            suffixes += range(len(texts) << _PLACE_BITS, (len(texts) << _PLACE_BITS) + len(text) + 1)
            texts.append(f"{_NAME}{text}{_NAME}")
            ranks.append(rank)
        beyond = [f"{_NAME}{text}{_NAME}" for text in names] if owner in large else []
        for end in ["", *(text[start:] for text in beyond for start in range(len(text) - 1))]:
            suffixes.append(len(texts) << _PLACE_BITS)
            texts.append(f"{_OWNER}{owner}{_NAME}{end}")
            ranks.append(rank)
    waiting = [("", suffixes)]
    while waiting:
        path, group = waiting.pop()
        found = list(dict.fromkeys(ranks[suffix >> _PLACE_BITS] for suffix in group))
        most = RARE_OWNER if path.startswith(_OWNER) and _NAME not in path[:-1] else RARE
        if len(found) <= most:
            yield Entry(path, None, found)
            continue
        if len(path) == DEEPEST:
            yield Entry(path, -1, found[:RARE_OWNER])
            continue
        yield Entry(path, len(found), found[:BEST])
        below, depth = defaultdict[str, list[int]](list), len(path)
        for suffix in group:
            text, at = texts[suffix >> _PLACE_BITS], (suffix & (1 << _PLACE_BITS) - 1) + depth
            if at < len(text):
                below[text[at]].append(suffix)
        waiting += [(path + letter, below[letter]) for letter in sorted(below, reverse=True)]
