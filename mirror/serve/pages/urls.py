"""All addresses that pages lead to, made from names in which every character may occur."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from datasette.utils import tilde_encode

LONGEST = 500
"""Bytes of a name in a path; beyond it the number of its row stands in, since servers limit addresses."""


class Links:
    """Addresses on this server; `base` puts Datasette's `base_url` before a path."""

    def __init__(self, base: Callable[[str], str], database: str) -> None:
        self._base = base
        self._database = database

    def path(self, path: str, parameters: Mapping[str, Any] | None = None) -> str:
        """Return an address with those parameters that say something."""
        said = {key: value for key, value in (parameters or {}).items() if value not in (None, "", False)}
        return str(self._base(path)) + (f"?{urlencode(said, errors='replace')}" if said else "")

    def repository(self, full_name: str, row_id: int, **parameters: Any) -> str:
        """Return a repository's page."""
        named = _segments(full_name)
        if named is None:
            return self.path("/-/r", {"id": row_id, **parameters})
        return self.path(f"/-/r/{named}", parameters)

    def owner(self, username: str | None, row_id: int | None = None, **parameters: Any) -> str:
        """Return an owner's page."""
        segment = _segment(username or "")
        if segment is None:
            return self.path("/-/u", {"id": row_id, **parameters})
        return self.path(f"/-/u/{segment}", parameters)

    def search(self, form: str = "", **parameters: Any) -> str:
        """Return a search; `form` is a suffix like ``.json``."""
        return self.path(f"/-/search{form}", parameters)

    def changes(self, form: str = "", **parameters: Any) -> str:
        """Return the list of changes; `form` is a suffix like ``.atom``."""
        return self.path(f"/-/changes{form}", parameters)

    def tables(self) -> str:
        """Return the list of tables, of all attached databases where no mirror is known."""
        return self.path(f"/{tilde_encode(self._database)}" if self._database else "/-/index")

    def table(self, table: str, **parameters: Any) -> str:
        """Return one of Datasette's tables, or a stored query."""
        return self.path(f"/{tilde_encode(self._database)}/{tilde_encode(table)}", parameters)

    def row(self, table: str, key: object) -> str:
        """Return one of Datasette's rows."""
        return self.path(f"/{tilde_encode(self._database)}/{tilde_encode(table)}/{tilde_encode(str(key))}")

    def sql(self, sql: str, **values: Any) -> str:
        """Return a query with its answer."""
        return self.path(f"/{tilde_encode(self._database)}", {"sql": sql, **values})

    def api(self, prefix: str, full_name: str) -> str | None:
        """Return a repository in an API, where its name fits into a path."""
        named = _segments(full_name)
        return None if named is None else self.path(f"{prefix}/repositories/{named}")


def safe_external(address: str | None) -> str | None:
    """Return an address that a link may lead to: of the web, with a host, and nothing a browser would run."""
    try:
        parts = urlsplit((address or "").strip())
    except ValueError:
        return None
    is_safe = parts.scheme.lower() in ("http", "https") and parts.hostname
    return (address or "").strip() if is_safe else None


def _segments(full_name: str) -> str | None:
    """Return both halves of a full name as a path, where they can be one."""
    owner, slash, slug = full_name.partition("/")
    parts = [_segment(owner), _segment(slug)]
    return "/".join(filter(None, parts)) if slash and all(parts) else None


def _segment(name: str) -> str | None:
    """Quote a name for a path; None where browsers would take it for something else, or it is too long."""
    if not name or name in (".", "..") or "/" in name or "\x00" in name:
        return None
    segment = quote(name, safe="", errors="replace")
    return segment if len(segment) <= LONGEST else None
