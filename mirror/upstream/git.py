"""Branches and tags by git's own protocol, which costs none of the API's budget.

Refs that come this way carry no dates, authors or messages. Each repository costs one git request, two where
the server speaks protocol version 2.
"""

from urllib.parse import quote, urlsplit

from mirror.credentials import Credential
from mirror.errors import UpstreamRefused, UpstreamShapeError
from mirror.model import Ref, RepositoryKey
from mirror.upstream.client import USER_AGENT, Http
from mirror.upstream.git_protocol import (
    Advertisement,
    Capabilities,
    GitError,
    GitRef,
    from_advertisement,
    from_ls_refs,
    ls_refs_request,
)
from mirror.upstream.protocol import Page
from mirror.upstream.response import Response, shown

BRANCHES, TAGS = "refs/heads/", "refs/tags/"
GIT_AGENT = f"git/2.47.0 ({USER_AGENT})"  # without "git/" Bitbucket answers with a web page
TOKEN_USER = "x-token-auth"  # noqa: S105 - a user name
API_TOKEN_USER = "x-bitbucket-api-token-auth"  # noqa: S105 - a user name

_ASK = "/info/refs?service=git-upload-pack"
_TYPE = "application/x-git-upload-pack-"


class GitRefs:
    """Reads the refs of git repositories; `http` is the connection pool to the git host."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def fetch_refs(self, key: RepositoryKey) -> Page[Ref]:
        """Read all branches and tags at once."""
        found, answer = self._advertisement(key)
        refs = tuple(ref for named in found.refs if (ref := to_ref(named)) is not None)
        return Page(rows=refs, next=None, size=len(refs), date=answer.date)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _advertisement(self, key: RepositoryKey) -> tuple[Advertisement, Response]:
        """Ask for refs, in a second request where the server speaks version 2."""
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
            if isinstance(found, Advertisement):
                return found, answer
            answer = self._ls_refs(answer.address, found)
            return from_ls_refs(answer.body), answer
        except GitError as error:
            words = shown(self._http.redacted(str(error)))
            raise UpstreamRefused(f"{answer.url}: git says: {words}", status=403) from None
        except ValueError as error:
            raise UpstreamShapeError(f"{answer.url}: not as git answers: {error}") from None

    def _ls_refs(self, address: str, capabilities: Capabilities) -> Response:
        """Ask by protocol version 2, where the first answer came from: a redirect may have led there."""
        if "ls-refs" not in capabilities.values or not address.endswith(_ASK):
            raise ValueError("a server of protocol version 2 that lists no refs")
        return self._http.send(
            "POST",
            address.removesuffix(_ASK) + "/git-upload-pack",
            content=ls_refs_request(capabilities, (BRANCHES, TAGS)),
            headers={
                "Git-Protocol": "version=2",
                "Content-Type": _TYPE + "request",
                "Accept": _TYPE + "result",
            },
            kind="git",
            content_type=_TYPE + "result",
            repeat=True,  # this POST only reads
        )


def to_ref(named: GitRef) -> Ref | None:
    """Convert a ref; None for what is neither branch nor tag (notes, pull requests).

    An annotated tag names its commit through an object of its own; the commit is what counts.
    """
    target = named.peeled or named.object_id
    if named.name.startswith(BRANCHES):
        return Ref(kind="branch", name=named.name.removeprefix(BRANCHES), target_hash=target)
    if named.name.startswith(TAGS):
        return Ref(kind="tag", name=named.name.removeprefix(TAGS), target_hash=target)
    return None


def git_credential(credential: Credential) -> Credential:
    """Return a Cloud credential as git wants it: a fixed user name replaces the e-mail, or is added.

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
