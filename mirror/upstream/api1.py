"""A server that speaks API 1.0 as an upstream: a Bitbucket from before 2019, or another mirror.

It lists everything of a user in one answer, without pages. It has no identities but names, so a renamed
repository looks like a deleted and a new one.
"""

from functools import partial
from urllib.parse import urlencode

import msgspec

from mirror.addresses import segment
from mirror.errors import CredentialsRefused, UpstreamRefused, UpstreamShapeError
from mirror.model import Member, Owner, Ref, Repository, RepositoryKey, RepositorySettings
from mirror.upstream import api1_decode as decode
from mirror.upstream.client import Http, Method
from mirror.upstream.protocol import ListingOrder, Page, RowDecoder
from mirror.upstream.response import Response

_REFS = {
    "branches": RowDecoder(decode.NamedChangesetJson, decode.to_branch),
    "tags": RowDecoder(decode.NamedChangesetJson, decode.to_tag),
}
_TO_OWNED = RowDecoder(decode.RepositoryJson, decode.to_owner_of)


_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class UserAnswer(msgspec.Struct, frozen=True):
    """A user with all of their repositories."""

    user: decode.UserJson
    repositories: list[msgspec.Raw] = []


class Api1:
    """A server that speaks API 1.0."""

    orders_by_update = False
    knows_hg = True
    never_tells = frozenset[str]()

    def __init__(self, name: str, http: Http) -> None:
        self.name = name
        self.anonymous = http.credential.form == "anonymous"
        self._http = http
        self._keep = partial(decode.with_told, anonymous=self.anonymous)

    def fetch_current_user(self) -> Owner | None:
        """Request the user of the credential; without a credential, return None without a request."""
        if self.anonymous:
            return None
        try:
            found, _ = self._http.get_json("user/", UserAnswer)
        except CredentialsRefused as error:
            raise CredentialsRefused(f"the upstream treats us as anonymous: {error}") from None
        except UpstreamRefused as error:
            if error.status in (403, 404):
                return None
            raise
        return decode.to_user(found.user)

    def fetch_workspaces(self, cursor: str | None) -> Page[Owner]:  # noqa: ARG002 - there is one page
        """List the owners of the repositories that the credential can see, in one answer."""
        try:
            listing, answer = self._http.get_json("user/repositories/", list[msgspec.Raw])
        except UpstreamRefused as error:
            raise UpstreamRefused(
                f'{error} - name in the configuration what to mirror: workspaces = ["some-user"]',
                status=error.status,
            ) from None
        rows, bad = _TO_OWNED.decode(listing)
        owners = tuple({owner.uuid: owner for owner in rows}.values())
        return Page(rows=owners, next=None, size=len(owners), date=answer.date, bad=bad)

    def fetch_workspace(self, workspace: str) -> Owner:
        """Request one user or team."""
        found, _ = self._http.get_json(f"users/{segment(workspace)}/", UserAnswer)
        return decode.to_user(found.user)

    def fetch_members(self, workspace: str, cursor: str | None) -> Page[Member]:  # noqa: ARG002
        """Return an empty page without a request: API 1.0 has no members."""
        return Page(rows=(), next=None, size=0, date=self._http.clock())

    def fetch_repositories(self, workspace: str, order: ListingOrder, cursor: str | None) -> Page[Repository]:  # noqa: ARG002
        """Request all repositories of a user at once, in the server's own order."""
        found, answer = self._http.get_json(f"users/{segment(workspace)}/", UserAnswer)
        owner = decode.to_user(found.user)
        rows = RowDecoder(decode.RepositoryJson, lambda row: decode.to_repository(row, owner))
        good, bad = rows.decode(found.repositories, self._keep)
        return Page(rows=good, next=None, size=len(found.repositories), date=answer.date, bad=bad)

    def fetch_repository(self, key: RepositoryKey) -> Repository:
        """Request one repository by its name."""
        row, answer = self._http.get_json(f"{_path(key)}/", decode.RepositoryJson)
        return self._keep(decode.to_repository(row, None), answer.body)

    def fetch_refs(self, key: RepositoryKey, cursor: str | None) -> Page[Ref]:
        """Request all branches, then all tags: one object each, without pages."""
        kind = cursor or "branches"
        if kind not in _REFS:
            raise UpstreamShapeError(f"{cursor!r} is not a cursor of a listing of refs")
        found, answer = self._http.get_json(f"{_path(key)}/{kind}/", dict[str, msgspec.Raw])
        rows, bad = _REFS[kind].decode(
            (decode.with_name(name, raw) for name, raw in found.items()), self._keep
        )
        onward = "tags" if kind == "branches" else None
        return Page(rows=rows, next=onward, size=None, date=answer.date, bad=bad)

    def is_ancestor(self, key: RepositoryKey, commit: str, of: str) -> bool | None:  # noqa: ARG002
        """Return None without a request: API 1.0 compares no commits."""
        return None

    def find_repository(self, full_name: str) -> Repository:
        """Request the repository that has this name now."""
        return self.fetch_repository(RepositoryKey(uuid="", full_name=full_name))

    def create_repository(self, owner: str, slug: str, settings: RepositorySettings) -> Repository:
        """POST to all repositories, naming the owner; the server makes the slug of the name."""
        fields = {"name": slug, **_fields(settings), "owner": owner}
        return self._written(self._send("POST", "repositories/", fields))

    def update_repository(self, key: RepositoryKey, settings: RepositorySettings) -> Repository:
        """PUT what is to change."""
        return self._written(self._send("PUT", f"{_path(key)}/", _fields(settings)))

    def delete_repository(self, key: RepositoryKey) -> None:
        """DELETE it."""
        self._http.delete(f"{_path(key)}/")

    def fork_repository(self, key: RepositoryKey, owner: str, settings: RepositorySettings) -> Repository:
        """POST to its forks; a server that takes no `owner` forks under the caller's own name."""
        fields = {**_fields(settings), "owner": owner}
        fields.pop("scm", None)  # a fork is of the kind of its parent
        return self._written(self._send("POST", f"{_path(key)}/fork", fields))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, method: Method, path: str, fields: dict[str, str]) -> Response:
        return self._http.send(method, path, content=urlencode(fields).encode(), headers=_FORM)

    def _written(self, answer: Response) -> Repository:
        return decode.to_repository(self._http.decoded(answer, decode.RepositoryJson), None)


def _path(key: RepositoryKey) -> str:
    return f"repositories/{segment(key.workspace)}/{segment(key.slug)}"


def _fields(settings: RepositorySettings) -> dict[str, str]:
    """Return settings as fields of a form, with two switches in place of the fork policy."""
    given = settings.given()
    policy = given.pop("fork_policy", None)
    if policy is not None:
        given |= {"no_forks": policy == "no_forks", "no_public_forks": policy != "allow_forks"}
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
