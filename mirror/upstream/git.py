"""Branches and tags by git's own protocol, which costs none of the API's budget.

Everything else is asked of the upstream that is wrapped. Refs that come this way carry no dates, authors or
messages. Each repository costs one git request, two where the server speaks protocol version 2.
"""

from urllib.parse import quote, urlsplit

from mirror.credentials import Credential
from mirror.errors import UpstreamRefused, UpstreamShapeError
from mirror.model import Member, Owner, Ref, Repository, RepositoryKey
from mirror.upstream.client import USER_AGENT, Http
from mirror.upstream.git_protocol import (
    Advertised,
    Capabilities,
    GitError,
    Named,
    from_advertisement,
    from_ls_refs,
    ls_refs_request,
)
from mirror.upstream.protocol import Caller, Order, Page, Upstream
from mirror.upstream.response import Answer, shown

BRANCHES, TAGS = "refs/heads/", "refs/tags/"
GIT_AGENT = f"git/2.47.0 ({USER_AGENT})"  # without "git/" Bitbucket answers with a web page
TOKEN_USER = "x-token-auth"  # noqa: S105 - a user name
API_TOKEN_USER = "x-bitbucket-api-token-auth"  # noqa: S105 - a user name

_ASK = "/info/refs?service=git-upload-pack"
_TYPE = "application/x-git-upload-pack-"


def git_credential(credential: Credential) -> Credential:
    """Return a Cloud credential as git wants it: with literal users in place of the e-mail or of none.

    The names are from support.atlassian.com/bitbucket-cloud/docs/using-api-tokens and ../using-access-tokens.
    """
    if credential.form == "bearer":
        return Credential("basic", TOKEN_USER, credential.secret)
    if credential.form == "basic" and "@" in credential.user:
        return Credential("basic", API_TOKEN_USER, credential.secret)
    return credential


def git_root(url: str, *, datacenter: bool) -> str:
    """Return the address below which repositories lie: Bitbucket's web host, or ``/scm`` of a Data Center."""
    parts = urlsplit(url)
    if datacenter:
        return f"{parts.scheme}://{parts.netloc}{parts.path.partition('/rest/')[0].rstrip('/')}/scm"
    host = "bitbucket.org" if parts.netloc == "api.bitbucket.org" else parts.netloc
    return f"{parts.scheme}://{host}"


class GitRefs:
    """An upstream whose refs are read by git; `http` is its pool to the git host."""

    def __init__(self, upstream: Upstream, http: Http) -> None:
        self.name = upstream.name
        self.anonymous = upstream.anonymous
        self.orders_by_update = upstream.orders_by_update
        self._upstream = upstream
        self._http = http

    def fetch_caller(self) -> Caller:
        """Ask the wrapped upstream."""
        return self._upstream.fetch_caller()

    def fetch_workspaces(self, place: str | None) -> Page[Owner]:
        """Ask the wrapped upstream."""
        return self._upstream.fetch_workspaces(place)

    def fetch_workspace(self, workspace: str) -> Owner:
        """Ask the wrapped upstream."""
        return self._upstream.fetch_workspace(workspace)

    def fetch_members(self, workspace: str, place: str | None) -> Page[Member]:
        """Ask the wrapped upstream."""
        return self._upstream.fetch_members(workspace, place)

    def fetch_repositories(self, workspace: str, order: Order, place: str | None) -> Page[Repository]:
        """Ask the wrapped upstream."""
        return self._upstream.fetch_repositories(workspace, order, place)

    def fetch_repository(self, key: RepositoryKey) -> Repository:
        """Ask the wrapped upstream."""
        return self._upstream.fetch_repository(key)

    def fetch_refs(self, key: RepositoryKey, place: str | None) -> Page[Ref]:
        """Read all branches and tags at once; those of Mercurial repositories come from the API."""
        if key.scm == "hg" or place is not None:
            return self._upstream.fetch_refs(key, place)
        found, answer = self._advertised(key)
        refs = tuple(ref for named in found.refs if (ref := shape_named(named)) is not None)
        return Page(rows=refs, place=None, size=len(refs), date=answer.date)

    def fetch_main_branch(self, key: RepositoryKey) -> str | None:
        """Read which branch HEAD stands for; None where it stands for none."""
        found, _ = self._advertised(key)
        return found.head.removeprefix(BRANCHES) if found.head else None

    def close(self) -> None:
        """Let go of the connections."""
        self._upstream.close()
        self._http.close()

    def _advertised(self, key: RepositoryKey) -> tuple[Advertised, Answer]:
        """Ask for refs, in a second request where the server wants to be asked twice."""
        # The host answers 405 to double slashes and to one at the end.
        path = f"{quote(key.workspace, safe='~')}/{quote(key.slug, safe='')}.git"
        answer = self._http.get(
            path + _ASK,
            kind="git",
            headers={"Git-Protocol": "version=2", "Accept": "*/*"},
            content_type=_TYPE + "advertisement",
        )
        try:
            found = from_advertisement(answer.body)
            if isinstance(found, Advertised):
                return found, answer
            answer = self._ls_refs(answer.address, found)
            return from_ls_refs(answer.body), answer
        except GitError as error:
            words = shown(self._http.redacted(str(error)))
            raise UpstreamRefused(f"{answer.url}: git says: {words}", status=403) from None
        except ValueError as error:
            raise UpstreamShapeError(f"{answer.url}: not as git answers: {error}") from None

    def _ls_refs(self, address: str, capabilities: Capabilities) -> Answer:
        """Ask by protocol version 2, where the first answer came from, which a redirect may have changed."""
        if "ls-refs" not in capabilities.values or not address.endswith(_ASK):
            raise ValueError("a server of version 2 that lists no refs")
        return self._http.send(
            "POST",
            address.removesuffix(_ASK) + "/git-upload-pack",
            content=ls_refs_request(capabilities, (BRANCHES, TAGS, "HEAD")),
            headers={
                "Git-Protocol": "version=2",
                "Content-Type": _TYPE + "request",
                "Accept": _TYPE + "result",
            },
            kind="git",
            content_type=_TYPE + "result",
            repeat=True,  # it reads only
        )


def shape_named(named: Named) -> Ref | None:
    """Shape a ref; None for what is neither branch nor tag (notes, pull requests).

    An annotated tag names a commit by way of its own object; what else does so is taken the same way.
    """
    target = named.peeled or named.object_id
    if named.name.startswith(BRANCHES):
        return Ref(kind="branch", name=named.name.removeprefix(BRANCHES), target_hash=target)
    if named.name.startswith(TAGS):
        return Ref(kind="tag", name=named.name.removeprefix(TAGS), target_hash=target)
    return None
