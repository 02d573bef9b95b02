"""Make a site: copy the public rows into a file, then write each page and shard from it.

A page has a *fingerprint* of its source: while it stays the same, the page is not rendered again. It covers
all that the page shows, or more: the program that makes pages, and every column that a page may read except
NOT_SHOWN, in the order of the rows. It leaves out row ids, because they shift when a repository is added or
removed.
"""

import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mirror.errors import ConfigError
from mirror.publish.snapshot import OnProgress, inside_hosts, public_rows
from mirror.queries.forks import DEEPEST, HIGHEST
from mirror.site.folder import PER_PAGE, PagePaths, PageSource, SiteFolder, open_folder
from mirror.site.pages import Pages, feed, robots, sitemaps
from mirror.site.shards import DIRECTORY, Named, files, read_names
from mirror.store.files import open_reader
from mirror.store.lock import place_apart, site_lock
from mirror.store.rows import fetch

TITLE = "Bitbucket mirror"
REPORTED_EVERY = 100


class SiteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The title of a site, and the address where it will be, "" if unknown."""

    title: str = TITLE
    base_url: str = ""


class MadeSite(msgspec.Struct, frozen=True, kw_only=True):
    """A finished site: `bytes` is the size of all `files`, `written` counts new and changed ones.

    `inside_hosts` are as in `mirror.publish.snapshot.Published`.
    """

    folder: str
    repositories: int
    owners: int
    files: int
    written: int
    removed: int
    bytes: int
    inside_hosts: list[str]


def make_site(
    mirror: Path, folder: Path, options: SiteOptions, *, progress: OnProgress = lambda *_: None
) -> MadeSite:
    """Write the public part of a mirror into a folder; unchanged files are not written.

    Raises ConfigError for a folder with other files and for a wrong address, StoreLocked while another
    process makes a site of the mirror, StoreError if a file cannot be used. The next run resumes.
    """
    base = checked_base(options.base_url)
    open_reader(mirror).close()  # without a mirror, not even the folder is made
    place_apart(mirror, folder)
    with (
        site_lock(mirror),
        open_folder(folder) as site,
        public_rows(mirror, progress=progress, suffix=".site", indexed=True) as file,
        closing(open_reader(file)) as connection,
    ):
        return _filled(connection, site, folder, options.title, base, progress)


def checked_base(url: str) -> str:
    """Return an address with a final slash, "" for ""; raises ConfigError if it is not a web address."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ConfigError(f"{url}: not the address of a site; write https://host.example/path/")
    return url.rstrip("/") + "/"


def _filled(
    connection: sqlite3.Connection,
    site: SiteFolder,
    folder: Path,
    title: str,
    base: str,
    progress: OnProgress,
) -> MadeSite:
    places = PagePaths(connection)
    pages = Pages(connection, places, title=title, base_path=urlsplit(base).path or "/")
    sources = Sources(connection, places, [title])
    repositories, owners = sources.repositories(), sources.owners()
    for path, text in pages.assets.items():
        site.write(path, text.encode())
    _write_pages(site, pages, repositories, owners, progress)
    progress("names", 0, 1)
    _write_search(site, read_names(connection, places), sources.common)
    summaries = list(pages.summaries())
    shown = [path for path, _ in summaries if path != "404.html"]
    shown += [source.path for source in (*owners, *repositories)]
    for path, text in (*_beside(connection, places, title, base, shown), *summaries):
        site.write(path, text.encode())
    return MadeSite(
        folder=str(folder),
        repositories=len(repositories),
        owners=sum(source.page == 1 for source in owners),
        files=site.finish(),
        written=site.written,
        removed=site.removed,
        bytes=site.bytes,
        inside_hosts=inside_hosts(connection),
    )


def _write_pages(
    site: SiteFolder,
    pages: Pages,
    repositories: list[PageSource],
    owners: list[PageSource],
    progress: OnProgress,
) -> None:
    """Render the pages whose source changed."""
    step = _stepping(progress, len(repositories) + len(owners))

    def changed(sources: list[PageSource]) -> Iterator[PageSource]:
        for source in sources:
            if site.keeps(source.path, source.fingerprint):
                step("pages")
            else:
                yield source

    wanted = (pages.repositories, list(changed(repositories))), (pages.owners, list(changed(owners)))
    for known in (False, True):  # new pages first, so that links to them lead somewhere
        for rendered, some in wanted:
            for source, text in rendered([source for source in some if site.has(source.path) is known]):
                site.write(source.path, text.encode(), source.fingerprint)
                step("pages")


def _write_search(site: SiteFolder, named: Named, common: str) -> None:
    source = fingerprint(common, *named)
    if not site.keeps_folder(DIRECTORY, source):
        for path, body in files(named):
            site.write(path, body, source)


def _beside(
    connection: sqlite3.Connection, places: PagePaths, title: str, base: str, shown: list[str]
) -> Iterator[tuple[str, str]]:
    yield "feed.xml", feed(connection, places, base, title)
    yield "robots.txt", robots(base)
    yield ".nojekyll", ""  # makes GitHub Pages serve every file
    if base:
        yield from sitemaps(base, shown)


def _stepping(progress: OnProgress, total: int) -> Callable[[str], None]:
    """Return a function that counts pages, and reports every hundredth."""
    done = 0

    def step(what: str) -> None:
        nonlocal done
        done += 1
        if done % REPORTED_EVERY == 0:
            progress(what, min(done, total), total)

    return step


NOT_SHOWN = ("id", "repository_id", "owner_id", "parent_id", "user_id", "last_seen_at", "refs_synced_at")
"""Columns that fingerprints ignore: row ids, and moments that change with every sync and no page shows."""

_PROGRAM = (".css", ".html", ".js", ".py", ".svg")
_SIZE = 12


def fingerprint(*values: Any) -> str:
    """Return the fingerprint of some texts, numbers, bytes, and lists of them."""
    return _digest(values).hex()


def _digest(value: Any) -> bytes:
    return blake2b(msgspec.msgpack.encode(value), digest_size=_SIZE).digest()


@cache
def program() -> str:
    """Return the fingerprint of the program: all its files, and the versions of what renders pages."""
    folder = Path(__file__).parents[1]
    files = sorted(path for path in folder.rglob("*") if path.suffix in _PROGRAM)
    texts = [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in files]
    return fingerprint(sys.version, sqlite3.sqlite_version, version("jinja2"), version("markupsafe"), texts)


class Sources:
    """The pages of all repositories and owners in a file of public rows, with their fingerprints.

    `options` are the texts besides rows that all pages show.
    """

    def __init__(self, connection: sqlite3.Connection, places: PagePaths, options: Sequence[str]) -> None:
        self._connection = connection
        upstreams = fetch(connection, "SELECT * FROM upstreams ORDER BY id")
        self.common = fingerprint(program(), list(options), upstreams)
        self._owners = {
            row_id: (
                username,
                [places.owner(username, row_id, page) for page in range(1, -(-count // PER_PAGE) + 1)],
            )
            for row_id, username, count in fetch(
                connection,
                """SELECT u.id, u.username, count(*) FROM users u JOIN repositories r ON r.owner_id = u.id
                   WHERE u.is_owner GROUP BY u.id ORDER BY u.id""",
            )
        }
        self._rows = fetch(
            connection, "SELECT id, owner_id, parent_id, full_name FROM repositories ORDER BY id"
        )
        self._paths = {row_id: places.repository(full_name, row_id) for row_id, _, _, full_name in self._rows}
        self._listed = {
            row_id: _digest((self._paths[row_id], rest))
            for row_id, *rest in self._read("repositories", "id, refs_synced_at IS NULL", "id")
        }

    def repositories(self) -> list[PageSource]:
        """Return the page of each repository, in the order of their rows."""
        shown = dict(self._listed)
        for table in ("branches", "tags"):
            _chain(shown, self._read(table, f"repository_id, '{table}'", "repository_id, name"))
        _chain(shown, self._read("changes", "repository_id", "id"))
        family, namesakes = self._families(), self._namesakes()
        return [
            PageSource(
                self._paths[row_id],
                row_id,
                fingerprint(
                    self.common, shown[row_id], self._owners[owner_id][0], self._owners[owner_id][1][0],
                    family.get(row_id), namesakes.get(full_name.lower()),
                ),
            )
            for row_id, owner_id, _, full_name in self._rows
        ]  # fmt: skip

    def owners(self) -> list[PageSource]:
        """Return the pages of each owner, in the order of their rows."""
        shown = dict[int, bytes]()
        _chain(shown, self._read("users", "id", "id"))
        owner_of = {row_id: owner_id for row_id, owner_id, *_ in self._rows}
        _chain(shown, ((owner_of[row_id], digest) for row_id, digest in self._listed.items()))
        changes = self._read("changes", "repository_id", "id")
        _chain(shown, ((owner_of[row_id], self._listed[row_id], *rest) for row_id, *rest in changes))
        return [
            PageSource(path, row_id, fingerprint(self.common, shown[row_id], path, len(paths)), page)
            for row_id, (_, paths) in self._owners.items()
            for page, path in enumerate(paths, 1)
        ]

    def _read(self, table: str, first: str, order: str) -> Iterable[tuple[Any, ...]]:
        """Read the shown columns of a table; the expression `first` precedes them."""
        cursor = self._connection.cursor()
        cursor.row_factory = None
        names = [row[1] for row in cursor.execute(f"PRAGMA table_info({table})") if row[1] not in NOT_SHOWN]
        return cursor.execute(f"SELECT {', '.join([first, *names])} FROM {table} ORDER BY {order}")

    def _families(self) -> dict[int, bytes]:
        """Return digests of the parents and forks of each repository that has any."""
        parents = {row_id: parent for row_id, _, parent, _ in self._rows if parent is not None}
        children = defaultdict[int, list[int]](list)
        for row_id, parent in parents.items():
            children[parent].append(row_id)
        below = dict[int, bytes]()
        for _ in range(DEEPEST):
            below = {
                row_id: _digest([(self._listed[child], below.get(child)) for child in some])
                for row_id, some in children.items()
            }
        return {
            row_id: _digest((below.get(row_id), [self._listed[one] for one in _line(row_id, parents)]))
            for row_id in {*parents, *children}
        }

    def _namesakes(self) -> dict[str, bytes]:
        """Return digests of repositories that share a name, by the name in lower case."""
        names = [(full_name.lower(), row_id) for row_id, _, _, full_name in self._rows]
        counts = Counter(name for name, _ in names)
        shown = dict[str, bytes]()
        _chain(shown, ((name, self._listed[row_id]) for name, row_id in names if counts[name] > 1))
        return shown


def _chain(shown: dict[Any, bytes], rows: Iterable[Sequence[Any]]) -> None:
    """Add each row, in order, to the digest that its first value names."""
    for key, *rest in rows:
        shown[key] = _digest((shown.get(key), rest))


def _line(row_id: int, parents: dict[int, int]) -> list[int]:
    """Return the ancestors of a repository, as far up as a page shows them."""
    line = list[int]()
    while row_id in parents and len(line) < HIGHEST:
        row_id = parents[row_id]
        line.append(row_id)
    return line
