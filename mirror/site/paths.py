"""The files of a site and the links between them. Links are relative, so a site works in any folder.

A file is named after its content. A name that is not safe on every file system (capital letters, special
characters, too long, reserved by Windows) becomes its safe letters and a hash. So two names never share a
file, and a name keeps its file when others come and go.
"""

import hashlib
import re
import sqlite3
from typing import Any
from urllib.parse import urlencode

from mirror.queries.rows import fetch

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
    """Return the folder of an owner's files: its first two letters, so that no folder gets too large."""
    return name[:2].rstrip(".")


class PagePaths:
    """The path of each repository's and owner's page, from the top of the site."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._repositories = {row[0]: _repository(row[2], row[1]) for row in fetch(connection, _SAME_NAMES)}
        self._owners = {row[0]: file_name(row[2], apart=row[1]) for row in fetch(connection, _UNNAMED_OWNERS)}

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
