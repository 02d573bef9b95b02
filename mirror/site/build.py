"""Make a site: copy the public rows into a file, then write each page and shard from it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from mirror.errors import ConfigError
from mirror.publish.snapshot import OnProgress, inside_hosts, public_rows
from mirror.site.fingerprints import PageSource, Sources, fingerprint
from mirror.site.folder import PagePaths, SiteFolder, open_folder
from mirror.site.pages import Pages, feed, robots, sitemaps
from mirror.site.shards import DIRECTORY, Named, files, read_names
from mirror.store.files import open_reader
from mirror.store.lock import site_lock

TITLE = "Bitbucket mirror"
REPORTED_EVERY = 100


class SiteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The title of a site, and the address where it will be, "" if unknown."""

    title: str = TITLE
    base_url: str = ""


class MadeSite(msgspec.Struct, frozen=True, kw_only=True):
    """A finished site: `bytes` is the size of all `files`, `written` counts new and changed ones.

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


def make_site(
    mirror: Path, folder: Path, options: SiteOptions, *, progress: OnProgress = lambda *_: None
) -> MadeSite:
    """Write the public part of a mirror into a folder; unchanged files are not written.

    Raises ConfigError for a folder with other files and for a wrong address, StoreLocked while another
    process makes a site of the mirror, StoreError if a file cannot be used. The next run resumes.
    """
    base = checked_base(options.base_url)
    open_reader(mirror).close()  # without a mirror, not even the folder is made
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
    """Render the pages whose source changed: new pages first, so that links to them lead somewhere."""
    step = _stepping(progress, len(repositories) + len(owners))

    def changed(sources: list[PageSource]) -> Iterator[PageSource]:
        for source in sources:
            if site.keeps(source.path, source.fingerprint):
                step("pages")
            else:
                yield source

    wanted = (pages.repositories, list(changed(repositories))), (pages.owners, list(changed(owners)))
    for known in (False, True):
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
