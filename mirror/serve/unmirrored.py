"""Answers for data that the mirror does not hold, with its address at the upstream.

A 404 or an empty list would make clients report that there is no such data.
"""

import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

import msgspec

from mirror.queries.accounts import knows_members
from mirror.queries.first_listings import lacks
from mirror.queries.refs import REFS_NOT_MIRRORED, REFS_READ
from mirror.queries.rows import AccountRow, RepositoryRow, UpstreamRow
from mirror.queries.visibility import Caller, known_upstreams
from mirror.serve.exchange import Answer, ApiError, ApiRequest
from mirror.store.rows import fetch_value
from mirror.store.schema import HIDDEN

FindRow = Callable[[sqlite3.Connection, Any], AccountRow | RepositoryRow | None]

# Why an answer has no refs ("not read yet", "not mirrored"), or maybe not the present ones ("out of date"),
# or those of a time when the repository was private ("not public").
REFS_HEADER = "X-Mirror-Refs"
LISTING_HEADER = "X-Mirror-Listing"  # the same for what a workspace has: its repositories, its members
RETRY_SECONDS = 60

# Parameters with a credential for this mirror, which no other server, and no log of links, may see.
CREDENTIALS = frozenset({"access_token"})

# Resources below a repository in both APIs, by the next name in the path.
COMMON_NOUNS: Mapping[str, str] = {
    "src": "sources",
    "hooks": "webhooks",
    "issues": "issues",
    "wiki": "wikis",
    "downloads": "downloads",
    "pullrequests": "pull requests",
}

# What the API of each kind of upstream calls what other APIs call differently, below a repository.
_CLOUD_NAMES = {
    "branches": "refs/branches", "branches-tags": "refs", "changeset": "commit", "changesets": "commits",
    "followers": "watchers", "main-branch": "", "raw": "src", "tags": "refs/tags",
}  # fmt: skip
_LEGACY_NAMES = {
    "commit": "changesets", "commits": "changesets", "refs": "branches-tags", "refs/branches": "branches",
    "refs/tags": "tags", "watchers": "followers",
}  # fmt: skip
_CENTER_NAMES = {
    "branches-tags": "", "changeset": "commits", "changesets": "commits", "commit": "commits",
    "followers": "", "hooks": "webhooks", "main-branch": "default-branch", "pullrequests": "pull-requests",
    "refs": "", "refs/branches": "branches", "refs/tags": "tags", "src": "browse", "watchers": "",
}  # fmt: skip


class NotMirrored(ApiError):
    """The error 501 for what the mirror does not hold; `address` is its address at the upstream."""

    def __init__(self, what: str, address: str, *, detail: str | None = None) -> None:
        message, data = f"This mirror holds no {what}; ask {address}", {"upstream": address}
        super().__init__(501, message, detail=detail, data=data, headers={"Cache-Control": "no-store"})
        self.address = address

    def redirect(self) -> Answer:
        """Return a redirect to the upstream."""
        headers = {"Location": self.address, "Cache-Control": "no-store"}
        return Answer(body=self.body, status=307, headers=headers)


def not_mirrored(what: str, asked: ApiRequest, upstream_id: int, *, detail: str | None = None) -> NotMirrored:
    """Return the error for a request about something of an upstream."""
    upstream = asked.upstreams[upstream_id]
    return NotMirrored(what, upstream_address(upstream, asked.api, asked.path, asked.query), detail=detail)


def held_nowhere(what: str) -> ApiError:
    """Return the error for data of which the address does not show which upstream has it."""
    headers = {"Cache-Control": "no-store"}
    return ApiError(501, f"This mirror holds no {what}; ask the upstream", headers=headers)


def refusing(what: str, find: FindRow) -> Callable[[sqlite3.Connection, Any], Answer]:
    """Return a reader that raises NotMirrored, after `find` has checked what the caller may know.

    :param find: returns a row of the upstream that has it, None for the first one that the caller may know;
        raises ApiError.
    """

    def refuse(connection: sqlite3.Connection, asked: ApiRequest) -> Answer:
        row = find(connection, asked)
        upstream_id = _first_known(connection, asked.caller) if row is None else row.upstream_id
        raise held_nowhere(what) if upstream_id is None else not_mirrored(what, asked, upstream_id)

    return refuse


def _first_known(connection: sqlite3.Connection, caller: Caller) -> int | None:
    known = known_upstreams(connection, caller)
    sql = f"SELECT up.id FROM upstreams up WHERE {known} ORDER BY up.id LIMIT 1"
    found: int | None = fetch_value(connection, sql, caller.values)
    return found


def with_refs(
    asked: ApiRequest, row: RepositoryRow, refusal: Callable[[], ApiError] | None = None
) -> RepositoryRow:
    """Return a repository whose refs were read.

    Raises ApiError 501 if its refs are not mirrored, 503 if they were never read.

    :param refusal: makes the former error, in the form of another API.
    """
    if row.refs == REFS_NOT_MIRRORED:
        detail = 'Its operator configured refs = "none" for this upstream.'
        error = (
            refusal() if refusal else not_mirrored("branches and tags", asked, row.upstream_id, detail=detail)
        )
        error.headers[REFS_HEADER] = REFS_NOT_MIRRORED
        raise error
    if row.refs != REFS_READ:
        # A mirror of this mirror recognises the header.
        raise ApiError(
            503,
            f"The branches and tags of {row.full_name} have not been read yet",
            detail="The mirror reads them in one of its next syncs. Until then it does not know them.",
            headers={"Retry-After": str(RETRY_SECONDS), REFS_HEADER: "not read yet"},
        )
    return row


def of_refs(row: RepositoryRow, answer: Answer) -> Answer:
    """Return a list of refs, with a header for mirrors of this one if they are to be read again."""
    is_shown = row.is_private or row.public_from < HIDDEN
    if is_shown and not row.refs_stale:
        return answer
    doubt = "out of date" if is_shown else "not public"
    return msgspec.structs.replace(answer, headers={**answer.headers, REFS_HEADER: doubt})


def must_have_members(
    connection: sqlite3.Connection, asked: ApiRequest, row: AccountRow, refusal: Callable[[], ApiError]
) -> None:
    """Raise ApiError 503 if the members of a workspace were not read yet, and 501 if they cannot be read.

    :param refusal: makes the error 501.
    """
    must_be_listed(connection, asked.caller, asked.names[0], [row])
    if not knows_members(connection, row.id):
        error = refusal()
        error.headers[LISTING_HEADER] = REFS_NOT_MIRRORED
        raise error


def must_be_listed(
    connection: sqlite3.Connection, caller: Caller, name: str, owners: Iterable[AccountRow] | None = None
) -> None:
    """Raise ApiError 503 if what the owners of a name own has not been listed in full yet.

    To be called before an answer says what there is in a workspace, or that something is not there. A name
    without owners may be that of a workspace that has not been read at all.

    :param owners: the owners of the name, if they are known already.
    """
    if lacks(connection, caller, name, owners):
        raise ApiError(
            503,
            f"What {name} owns has not been listed in full yet",
            detail="The mirror lists it in one of its next syncs. Until then, anything may be missing here.",
            headers={"Retry-After": str(RETRY_SECONDS), LISTING_HEADER: "not read yet"},
        )


def upstream_address(upstream: UpstreamRow, api: str, path: str, query: str = "") -> str:
    """Return the upstream's address for a path of API 1.0 or 2.0.

    An upstream that speaks another API has other names in its paths.
    """
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if upstream.kind == "datacenter":
        parts = _center_path(parts)
    elif (api == "1.0") != (upstream.kind == "legacy"):
        parts[3:] = _renamed(parts[3:], _CLOUD_NAMES if api == "1.0" else _LEGACY_NAMES)
    here = "/".join([upstream.url.rstrip("/"), *(quote(part, safe="$;&=@!,:+") for part in parts)])
    return f"{here}{passed_on(query)}"


def passed_on(query: str) -> str:
    """Return a query as it was sent, with its question mark, without the credentials for this mirror."""
    kept = [one for one in query.split("&") if unquote_plus(one.partition("=")[0]).lower() not in CREDENTIALS]
    return as_sent(f"?{'&'.join(kept)}") if any(kept) else ""


def as_sent(address: str) -> str:
    """Escape the characters of an address that a client has escaped in part."""
    return quote(address, safe="%/?:@!$&'()*+,;=~", encoding="latin-1")


def _center_path(parts: list[str]) -> list[str]:
    """Return the path that a Data Center has for a path of Bitbucket Cloud."""
    match parts:
        case ["repositories", workspace, slug, *more]:
            return ["projects", workspace, "repos", slug, *_renamed(more, _CENTER_NAMES)]
        case ["workspaces" | "repositories" | "teams", workspace, *more]:
            return ["projects", workspace, *more]
    return parts


def _renamed(path: list[str], names: Mapping[str, str]) -> list[str]:
    """Return a path with the name of another API at its beginning, which may be of several parts."""
    for length in (2, 1):
        name = names.get("/".join(path[:length]))
        if name is not None:
            return [*filter(None, name.split("/")), *path[length:]]
    return path


def noun(name: str, nouns: Mapping[str, str]) -> str:
    """Return the noun for a name in a path; an unknown name is its own noun."""
    known = nouns.get(name) or COMMON_NOUNS.get(name)
    return known or re.sub(r"[^\w ]+", " ", name).strip()[:60] or "such thing"
