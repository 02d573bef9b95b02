"""Make a site: public rows into a file of their own, each page and shard out of that."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from mirror.errors import ConfigError
from mirror.publish import Told, inside_hosts, public_rows
from mirror.site.addresses import Places
from mirror.site.folder import SiteFolder
from mirror.site.pages import Pages
from mirror.site.shards import files, read_names
from mirror.site.texts import feed, robots, sitemaps
from mirror.store.files import open_reader
from mirror.store.lock import site_lock

TITLE = "Bitbucket mirror"
TOLD_EVERY = 100


class SiteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a site is made: its title, and the address that it will have; "" where that is not known."""

    title: str = TITLE
    base_url: str = ""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a site has: `bytes` in all `files`, of which `written` are new or changed; `removed` are gone.

    `inside_hosts` are as in `mirror.publish.Published`.
    """

    folder: str
    repositories: int
    owners: int
    files: int
    written: int
    removed: int
    bytes: int
    inside_hosts: list[str]


def make_site(mirror: Path, folder: Path, options: SiteOptions, *, told: Told = lambda *_: None) -> Made:
    """Bring a folder to what is public in a mirror; an unchanged file is not written.

    Raises ConfigError for a folder of other files and for a wrong address, StoreLocked where another process
    makes a site of the mirror, and StoreError where a file cannot be used; the next run goes on from there.
    """
    base = checked_base(options.base_url)
    with site_lock(mirror):
        site = SiteFolder(folder)
        with (
            public_rows(mirror, told=told, suffix=".site", indexed=True) as file,
            closing(open_reader(file)) as connection,
        ):
            return _filled(connection, site, folder, options.title, base, told)


def checked_base(url: str) -> str:
    """Return an address with its last slash, "" for none; raises ConfigError for one that is none."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ConfigError(f"{url}: is no address of a site; write https://host.example/path/")
    return url.rstrip("/") + "/"


def _filled(
    connection: sqlite3.Connection, site: SiteFolder, folder: Path, title: str, base: str, told: Told
) -> Made:
    places = Places(connection)
    repositories, owners = connection.execute(
        "SELECT count(*), count(DISTINCT owner_id) FROM repositories"
    ).fetchone()
    pages = Pages(connection, places, title=title, base_path=urlsplit(base).path or "/")
    step = _stepping(told, repositories + owners)
    shown = list[str]()
    for path, text in pages.all():
        step("pages")
        site.write(path, text.encode())
        shown.append(path)
    for path, text in _beside(connection, places, pages, title, base, shown):
        site.write(path, text.encode())
    for path, body in files(read_names(connection, places)):
        told("names", 0, 1)
        site.write(path, body)
    return Made(
        folder=str(folder),
        repositories=repositories,
        owners=owners,
        files=site.finish(),
        written=site.written,
        removed=site.removed,
        bytes=site.bytes,
        inside_hosts=inside_hosts(connection),
    )


def _beside(
    connection: sqlite3.Connection, places: Places, pages: Pages, title: str, base: str, shown: list[str]
) -> Iterator[tuple[str, str]]:
    """Yield what lies beside the pages."""
    yield from pages.assets.items()
    yield "feed.xml", feed(connection, places, base, title)
    yield "robots.txt", robots(base)
    yield ".nojekyll", ""  # GitHub's pages serve every file, then
    if base:
        yield from sitemaps(base, [path for path in shown if path != "404.html"])


def _stepping(told: Told, total: int) -> Callable[[str], None]:
    """Return what counts pages, and tells of some of them."""
    done = 0

    def step(what: str) -> None:
        nonlocal done
        done += 1
        if done % TOLD_EVERY == 0:
            told(what, min(done, total), total)

    return step
