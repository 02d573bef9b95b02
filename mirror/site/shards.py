"""The files that the visitor's browser searches: a sorted list of texts, split by first letters.

As in the mirror's own index (`docs/search.md`), the text of a name is ``^name^``, and each of its suffixes
leads to the repository. A prefix that more than RARE repositories share is a *node*, with their number and
the best of them. The first prefix below it with fewer is a *leaf*, with all of them. Texts of owners are
``$owner^``, without suffixes. A *group* is a prefix of owners with more than RARE_OWNER repositories: the
suffixes of their names are repeated after ``%prefix%``. Prefixes of the same owners are one group, named by
the longest; the group of a single owner ends in ``^``.

Nodes and leaves are sorted and split into shards; the directory has the first text of each. So a search reads
the directory, and one shard for each text. A shard names the start of the next one, so that a browser with an
older directory finds it. Texts are the bytes of UTF-8, one letter for each, so that Python and the browser
sort equally.
"""

import gzip
import heapq
import json
import sqlite3
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

from mirror.readable import visible
from mirror.search.names import BOUNDARY, Popularity, normalise, popularity, searched_names
from mirror.site.folder import PagePaths
from mirror.store.rows import fetch

RARE, RARE_OWNER = 150, 2_000
"""The most repositories of a leaf, in texts of names and of owners."""
BEST = 50
"""The number of repositories that a node lists."""
DEEPEST = 64
"""The longest text of a node or a leaf; a leaf at this depth lists at most RARE_OWNER repositories."""

SHARD, SHORTEST, CUT_AT = 28_000, 8_000, 61
"""The largest and the smallest size of a shard, in letters before compression. In between, a shard ends
before a text with a certain checksum, so that one more text does not move the ends of other shards."""

WITHOUT_SERVER = 5_000
"""Up to this many repositories can also be searched from the disk, where browsers read only scripts."""

DIRECTORY, SCRIPT = "search/directory.json.gz", "search/names.js"
_NAME, _OWNER, _GROUP = BOUNDARY.decode("latin-1"), "\xfe", "\xfd"
_PLACE_BITS = 20
_LAST_CASED = 0x20000
"""Unicode has no letters with a case from here on."""

Row = list[Any]
"""Of a repository: full name, name if it is not the slug, followers, forks, file if it does not follow from
the full name, and both names as they are shown, if hidden characters are written out. Without empty ends."""


class Entry(NamedTuple):
    """A node, or a leaf; for a leaf, `matches` is None, or -1 if it does not list all repositories.

    `ranks` are places in the order of popularity.
    """

    text: str
    matches: int | None
    ranks: list[int]


class Named(NamedTuple):
    """All repositories, most popular first, each with the texts that find it."""

    rows: list[Row]
    names: list[tuple[str, ...]]
    owners: list[str]


def read_names(connection: sqlite3.Connection, places: PagePaths) -> Named:
    """Read the repositories to search from a file of public rows."""
    found = fetch(
        connection,
        """SELECT r.id, r.full_name, r.name, r.slug, r.followers_count, r.forks_count, r.created_at,
               u.username FROM repositories r JOIN users u ON u.id = r.owner_id""",
    )
    found.sort(key=_rank)
    named = Named([], [], [])
    for row_id, full_name, name, slug, followers, forks, _, username in found:
        named.rows.append(_row(full_name, name, slug, followers, forks, places.repository(full_name, row_id)))
        named.names.append(tuple(dict.fromkeys(map(_letters, searched_names(name, slug)))))
        named.owners.append(_letters(normalise(username or "")))
    return named


def _rank(found: tuple[Any, ...]) -> Popularity:
    row_id, _, _, _, followers, forks, created_at, _ = found
    return popularity(followers, forks, created_at, row_id)


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

    Each shard comes after the next one in the order of texts, and the directory last. So a browser with an
    older directory finds every text while files are being replaced.
    """
    groups = _groups(named)
    shards = list(_shards(named, groups))
    starts = [shard[0].text for shard in shards]
    for shard, until in zip(reversed(shards), [None, *reversed(starts[1:])], strict=True):
        yield shard_file(shard[0].text), _packed({"until": until, **_as_json(shard, named.rows)})
    about = {"repositories": len(named.rows), "folds": folds()}
    if len(named.rows) <= WITHOUT_SERVER:
        text = json.dumps({**about, "rows": named.rows}, separators=(",", ":"))
        yield SCRIPT, f"globalThis.mirrorNames = {text};\n".encode()
    sizes = {group: len(ranks) for group, ranks in groups.items()}
    yield (
        DIRECTORY,
        _packed({**about, "groups": sizes, "owners": _owners_in(groups, named), "starts": starts}),
    )


def shard_file(start: str) -> str:
    """Return the file of the shard that begins with a text."""
    return f"search/n{start.encode('latin-1').hex()}.json.gz"


@cache
def folds() -> dict[str, str]:
    """Return the letters whose case folding in Python differs from a browser's lower case."""
    letters = (chr(code) for code in range(_LAST_CASED) if not 0xD800 <= code < 0xE000)
    return {
        letter: letter.casefold()
        for letter in letters
        if letter.casefold() != letter.lower() and unicodedata.normalize("NFKC", letter) == letter
    }


def _groups(named: Named) -> dict[str, list[int]]:
    """Return the repositories of each group of owners."""
    groups = dict[str, list[int]]()
    waiting = [("", list(range(len(named.rows))))]
    # Without recursion, because many owners may share a long prefix.
    while waiting:
        path, ranks = waiting.pop()
        below = defaultdict[str, list[int]](list)
        for rank in ranks:
            below[f"{named.owners[rank]}{_NAME}"[: len(path) + 1]].append(rank)
        if path and (len(below) > 1 or path in below):
            groups[path] = ranks
        waiting += [
            (longer, some) for longer, some in below.items() if len(some) > RARE_OWNER and longer != path
        ]
    return {group: groups[group] for group in sorted(groups, key=lambda group: group + _GROUP)}


def _owners_in(groups: Iterable[str], named: Named) -> list[str]:
    """Return the owners that are not a group themselves but share their name with the start of one."""
    begun = {group[:end] for group in groups for end in range(1, len(group) + 1)}
    return sorted(owner for owner in set(named.owners) if owner in begun and f"{owner}{_NAME}" not in begun)


def _packed(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return gzip.compress(text.encode(), mtime=0)  # no time, so that the same content gives the same bytes


def _as_json(shard: list[Entry], rows: list[Row]) -> dict[str, Any]:
    """Return a shard as JSON: each repository once, and the nodes and leaves that refer to it."""
    places = {
        rank: place for place, rank in enumerate(dict.fromkeys(rank for one in shard for rank in one.ranks))
    }
    entries = [[one.text, one.matches, [places[rank] for rank in one.ranks]] for one in shard]
    return {"rows": [rows[rank] for rank in places], "entries": entries}


def _shards(named: Named, groups: Mapping[str, list[int]]) -> Iterator[list[Entry]]:
    shard, size, seen = list[Entry](), 0, set[int]()
    for entry in _entries(named, groups):
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


def _entries(named: Named, groups: Mapping[str, list[int]]) -> Iterator[Entry]:
    everything = range(len(named.rows))
    owners = _Suffixes()
    for rank in everything:
        owners.add(rank, f"{named.owners[rank]}{_NAME}", range(1))
    of_groups = (
        _below(f"{_GROUP}{group}{_GROUP}", _suffixes(named, ranks))
        for group, ranks in groups.items()
        if len(ranks) < len(everything)
    )
    return heapq.merge(
        _below("", _suffixes(named, everything)),
        chain.from_iterable(of_groups),
        _below(_OWNER, owners, RARE_OWNER),
        key=attrgetter("text"),
    )


class _Suffixes:
    """Suffixes of texts, each packed into a number: which text, and the position in it."""

    def __init__(self) -> None:
        self.texts, self.ranks, self.suffixes = list[str](), list[int](), list[int]()

    def add(self, rank: int, text: str, places: range) -> None:
        """Add the suffixes of a text that begin at these places."""
        number = len(self.texts) << _PLACE_BITS  # a pair would take twice the memory
        self.suffixes += range(number + places.start, number + places.stop)
        self.texts.append(text)
        self.ranks.append(rank)


def _suffixes(named: Named, ranks: Iterable[int]) -> _Suffixes:
    found = _Suffixes()
    for rank in ranks:
        for name in named.names[rank]:
            found.add(rank, f"{_NAME}{name}{_NAME}", range(len(name) + 1))
    return found


def _below(root: str, of: _Suffixes, most: int = RARE) -> Iterator[Entry]:
    """Yield the nodes and leaves of suffixes in order, prefixed by `root`. A leaf has at most `most`."""
    texts, ranks = of.texts, of.ranks
    waiting = [("", of.suffixes)]
    while waiting:
        path, group = waiting.pop()
        found = list(dict.fromkeys(ranks[suffix >> _PLACE_BITS] for suffix in group))
        if len(found) <= most:
            yield Entry(root + path, None, found)
            continue
        if len(path) == DEEPEST:
            yield Entry(root + path, -1 if len(found) > RARE_OWNER else None, found[:RARE_OWNER])
            continue
        yield Entry(root + path, len(found), found[:BEST])
        below, depth = defaultdict[str, list[int]](list), len(path)
        for suffix in group:
            text, at = texts[suffix >> _PLACE_BITS], (suffix & (1 << _PLACE_BITS) - 1) + depth
            if at < len(text):
                below[text[at]].append(suffix)
        waiting += [(path + letter, below[letter]) for letter in sorted(below, reverse=True)]
