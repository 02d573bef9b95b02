"""The files of a site: their names, the links between them, and the folder that is brought up to date.

Links are relative, so a site works in any folder. A file is named after its content. A name that is not safe
on every file system (capital letters, special characters, too long, reserved by Windows) becomes its safe
letters and a hash. So two names never share a file, and a name keeps its file when others come and go.

Unchanged files are not written; files that are no longer needed are removed.

Each file is written beside its place and put there as a whole. The manifest, the list of all files, comes
last. A second list notes progress, so that the next run resumes one that was killed.
"""

import fcntl
import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from mirror.errors import ConfigError, StoreLocked
from mirror.store.faults import explained
from mirror.store.rows import fetch

HOME, SEARCH, CHANGES, OWNERS, FEED = (
    "index.html",
    "search.html",
    "changes.html",
    "owners/index.html",
    "feed.xml",
)
_SAFE = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,78}[a-z0-9_-])?")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_LETTERS = re.compile(r"[a-z0-9]+")
_READABLE = 40

_SAME_NAMES = """SELECT id, uuid, full_name FROM (
    SELECT id, uuid, full_name, row_number() OVER (PARTITION BY full_name ORDER BY id) AS nth
    FROM repositories) WHERE nth > 1"""
_UNNAMED_OWNERS = """SELECT id, uuid, coalesce(username, '') FROM (
    SELECT id, uuid, username, row_number() OVER (PARTITION BY username ORDER BY id) AS nth
    FROM users WHERE is_owner) WHERE nth > 1 OR coalesce(username, '') = ''"""


def file_name(name: str, *, apart: str = "") -> str:
    """Return a safe name for a file or a folder; `apart` distinguishes things that share a name."""
    if not apart and _SAFE.fullmatch(name) and not _RESERVED.fullmatch(name):
        return name
    digest = hashlib.sha256(f"{name}\0{apart}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{'-'.join(_LETTERS.findall(name.lower()))[:_READABLE]}~{digest}"


def _folder(name: str) -> str:
    return name[:2].rstrip(".")  # two letters, so that no folder gets too large; Windows drops a final dot


PER_PAGE = 100
"""How many repositories a page of an owner has."""


class PagePaths:
    """The path of each repository's and owner's page, from the top of the site."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._repositories = {
            row_id: _repository(full_name, uuid) for row_id, uuid, full_name in fetch(connection, _SAME_NAMES)
        }
        self._owners = {
            row_id: file_name(username, apart=uuid)
            for row_id, uuid, username in fetch(connection, _UNNAMED_OWNERS)
        }

    def repository(self, full_name: str, row_id: int) -> str:
        """Return the file of a repository."""
        return self._repositories.get(row_id) or _repository(full_name)

    def owner(self, username: str | None, row_id: int | None, page: int = 1) -> str:
        """Return the file of an owner's page."""
        name = self._owners.get(row_id or 0) or file_name(username or "")
        return f"u/{_folder(name)}/{name}{f'~p{page}' if page > 1 else ''}.html"


def _repository(full_name: str, apart: str = "") -> str:
    before, _, after = full_name.partition("/")
    owner = file_name(before)
    return f"r/{_folder(owner)}/{owner}/{file_name(after, apart=apart)}.html"


class PageSource(NamedTuple):
    """A page of a repository or an owner: its file, its row, and the fingerprint of its source."""

    path: str
    row_id: int
    fingerprint: str
    page: int = 1


def owners_page(number: int) -> str:
    """Return the file of a page of the list of owners."""
    return OWNERS if number == 1 else f"owners/{number}.html"


class StaticLinks:
    """The links of one page, by the methods that templates call; `top` leads from the page to the top."""

    def __init__(self, places: PagePaths, top: str) -> None:
        self._places = places
        self._top = top

    def path(self, path: str, parameters: Any = None) -> str:
        """Return the home page, or the list of owners."""
        del parameters
        return self._top + {"/": HOME, "/owners": OWNERS}[path]

    def repository(self, full_name: str, row_id: int, **_: Any) -> str:
        """Return a repository's page."""
        return self._top + self._places.repository(full_name, row_id)

    numbered = repository

    def owner(self, username: str | None, row_id: int | None = None, page: int = 1, **_: Any) -> str:
        """Return a page of an owner."""
        return self._top + self._places.owner(username, row_id, page)

    def owners(self, page: int) -> str:
        """Return a page of the list of owners."""
        return self._top + owners_page(page)

    def search(self, **parameters: str) -> str:
        """Return the page that searches."""
        return self._top + SEARCH + (f"?{urlencode(parameters, errors='replace')}" if parameters else "")

    def changes(self, form: str = "", **_: Any) -> str:
        """Return the list of changes, or its feed."""
        return self._top + (FEED if form else CHANGES)

    def pages(self) -> tuple[tuple[str, str, str], ...]:
        """Return the links of the navigation bar: name, label, address."""
        return (
            ("search", "Search", self.search()),
            ("owners", "Owners", self.path("/owners")),
            ("changes", "Changes", self.changes()),
        )


def top_of(path: str) -> str:
    """Return the relative path from a file to the top of the site."""
    return "../" * path.count("/")


MANIFEST, PROGRESS = ".mirror-site.json", ".mirror-site.progress.json"
OURS = ("assets", "owners", "r", "search", "u")
"""Folders in which every file belongs to the site. Other files beside them (`CNAME`, `.git`) stay."""

NOTED_EVERY = 20_000
"""The number of written files after which progress is noted."""

_PART = ".part"
_FILE, _FOLDER = 0o644, 0o755


@contextmanager
def open_folder(folder: Path) -> Iterator["SiteFolder"]:
    """Open the folder of a site and lock it against other processes.

    The lock is on a subfolder, because a lock file would be uploaded with the site. Raises ConfigError if it
    is no folder or has other files, StoreLocked if another process holds it.
    """
    inner = folder / OURS[0]
    with explained(folder):
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: not a folder; give one for the site")
        if folder.exists() and not any((folder / name).exists() for name in (MANIFEST, PROGRESS)):
            others = [
                one for one in folder.iterdir() if one != inner or not one.is_dir() or any(one.iterdir())
            ]
            if others:
                raise ConfigError(f"{folder}: not a site, it has other files; give an empty folder")
        _make(inner)
        descriptor = os.open(inner, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreLocked(f"{folder}: another process is making a site there") from None
        except OSError:
            pass  # some network file systems lock no folders; the lock of the mirror holds
        with explained(folder):
            site = SiteFolder(folder)
        yield site
    finally:
        os.close(descriptor)


class FileList(msgspec.Struct):
    """The files of a site by path: the hash of the bytes, and the fingerprint of the source.

    The fingerprint is "" for a file that every run makes again. Earlier versions stored the size instead.
    """

    files: dict[str, tuple[str, str | int]] = {}


class SiteFolder:
    """The folder of a site that a run brings up to date; `open_folder` makes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = set[Path]()
        self._new = FileList({})
        self.written = self.removed = self.bytes = 0
        found = [self._read(name) for name in (MANIFEST, PROGRESS) if (folder / name).exists()]
        if not found:
            self._replace(PROGRESS, msgspec.json.encode(self._new))  # shows that the folder is ours
        files = (one.files.items() for one in found)
        self._old = FileList({path: known for some in files for path, known in some if _is_inside(path)})

    def _read(self, name: str) -> FileList:
        try:
            return msgspec.json.decode((self._folder / name).read_bytes(), type=FileList)
        except msgspec.DecodeError:
            return FileList({})  # damaged: everything is made again

    def has(self, path: str) -> bool:
        """Return whether the site had a file before this run."""
        return path in self._old.files

    def keeps(self, path: str, source: str) -> bool:
        """Keep a file whose source is unchanged and that nobody edited; return whether it is kept."""
        known = self._old.files.get(path)
        if known is None or known[1] != source:
            return False
        with explained(self._folder):
            body = self._on_disk(path)
        if body is None or _hash(body) != known[0]:  # somebody removed or edited it
            return False
        self._new.files[path] = known
        self.bytes += len(body)
        return True

    def keeps_folder(self, last: str, source: str) -> bool:
        """Keep all files of a folder as `keeps` does, or none. `last` is the file that is written last."""
        folder, before = f"{Path(last).parent}/", self.bytes
        paths = [path for path in self._old.files if path.startswith(folder)]
        if self.has(last) and all(self.keeps(path, source) for path in paths):
            return True
        self.bytes = before
        for path in paths:
            self._new.files.pop(path, None)
        return False

    def write(self, path: str, body: bytes, source: str = "") -> None:
        """Write a file of the site, unless it already has these bytes."""
        if path in self._new.files:
            raise ValueError(f"two pages would be the file {path}")
        with explained(self._folder):
            if self._on_disk(path) != body:  # tools that upload a site go by the times of files
                self._replace(path, body)
                self.written += 1
                if self.written % NOTED_EVERY == 0:
                    self._replace(PROGRESS, msgspec.json.encode(self._new))
        self._new.files[path] = (_hash(body), source)
        self.bytes += len(body)

    def finish(self) -> int:
        """Remove files that are no longer needed and write the manifest; return the number of files."""
        with explained(self._folder):
            wanted = self._new.files
            # Of a killed run. In the folders of the site they are found; at its top are files of others too.
            parts = {f"{path}{_PART}" for path in wanted if "/" not in path}
            for path in {*self._old.files, *self._found(), *parts} - wanted.keys():
                self._remove(path)
            self._remove_empty_folders()
            if self._old != self._new or not (self._folder / MANIFEST).exists():
                self._replace(MANIFEST, msgspec.json.encode(self._new, order="deterministic"))
            (self._folder / MANIFEST).touch()  # its time tells when the site was last made
            (self._folder / PROGRESS).unlink(missing_ok=True)
        return len(wanted)

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            (self._folder / path).unlink()
            self.removed += not path.endswith(_PART)

    def _on_disk(self, path: str) -> bytes | None:
        """Return the bytes of a file; None if there is none, or if it is a link."""
        place = self._folder / path
        try:
            return None if place.is_symlink() else place.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _found(self) -> Iterator[str]:
        """Yield the paths of all files in the site's own folders."""
        start = len(str(self._folder)) + 1
        for ours in OURS:
            for at, _, names in os.walk(f"{self._folder}/{ours}"):
                yield from (f"{at[start:]}/{name}" for name in names)

    def _remove_empty_folders(self) -> None:
        for ours in OURS:
            for at, _, _ in os.walk(self._folder / ours, topdown=False):
                if not any(Path(at).iterdir()):
                    Path(at).rmdir()

    def _replace(self, path: str, body: bytes) -> None:
        place = self._folder / path
        if place.parent not in self._made:
            _make(place.parent)
            self._made.add(place.parent)
        part = place.with_name(place.name + _PART)
        try:
            with part.open("wb") as file:
                os.fchmod(file.fileno(), _FILE)
                file.write(body)
            part.replace(place)
        except OSError:
            with suppress(OSError):
                part.unlink()  # a full disk needs the room
            raise


def _make(folder: Path) -> None:
    """Make a folder that a web server can read, whatever the umask is, as the files are."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir()
        folder.chmod(_FOLDER)


def _hash(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def _is_inside(path: str) -> bool:
    # The list of files may have been edited: it must not lead to files outside of the site.
    return not path.startswith("/") and not {"", ".", ".."} & set(path.split("/"))
