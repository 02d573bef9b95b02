"""Branches and tags by git's own protocol, which costs none of the API's budget.

Refs that come this way carry no dates, authors or messages. Each repository costs one git request, two where
the server speaks protocol version 2. Answers are parsed strictly, by gitprotocol-common, gitprotocol-http,
gitprotocol-pack and gitprotocol-v2.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from urllib.parse import quote, urlsplit

import msgspec

from mirror.credentials import Credential
from mirror.decoding import object_id as checked_id
from mirror.errors import UpstreamRefused, UpstreamShapeError
from mirror.model import Ref, RepositoryKey
from mirror.upstream.client import USER_AGENT, Http
from mirror.upstream.protocol import BadRow, Page
from mirror.upstream.response import Response, shown

LONGEST_LINE = 65_520  # bytes of a pkt-line, with its length (gitprotocol-common)
MOST_REFS = 500_000  # refs of a repository; more would fill the memory

_LENGTH = re.compile(rb"[0-9a-f]{4}", re.IGNORECASE)
_NO_REFS = b"capabilities^{}"
_NO_OBJECT = (b"0" * 40, b"0" * 64)


class GitRef(msgspec.Struct, frozen=True):
    """A ref: its full name, the object that it names, and the commit behind it for an annotated tag.

    `object_id` is "" for a ref that the server itself cannot read, such as a file that a crash left empty: it
    lists such refs among the others.
    """

    name: str
    object_id: str
    peeled: str | None = None


class Advertisement(msgspec.Struct, frozen=True, kw_only=True):
    """All refs of a repository but HEAD."""

    refs: tuple[GitRef, ...] = ()


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a server of protocol version 2 can do; it lists its refs on a second request."""

    values: dict[str, str]


class GitError(ValueError):
    """The server answered ERR: it does not serve this repository."""


def lines_of(body: bytes) -> Iterator[bytes | None]:
    """Yield the lines of a body without their ends, and None for each flush; raises ValueError."""
    offset = 0
    while offset < len(body):
        prefix = body[offset : offset + 4]
        if not _LENGTH.fullmatch(prefix):
            raise ValueError(f"no length of a line at byte {offset:,}")
        length = int(prefix, 16)
        if length == 0:
            yield None
            offset += 4
            continue
        if length < 4 or length > LONGEST_LINE:  # 1 is a delimiter, which occurs only in requests
            raise ValueError(f"a line of length {length} at byte {offset:,}")
        line = body[offset + 4 : offset + length]
        if len(line) != length - 4:
            raise ValueError(f"the last line, at byte {offset:,}, is cut off")
        if line.startswith(b"ERR "):
            raise GitError(line[4:].decode("utf-8", "replace").strip())
        yield line.removesuffix(b"\n")
        offset += length


def line(text: str) -> bytes:
    """Encode one line of a request."""
    data = text.encode() + b"\n"
    return b"%04x%s" % (len(data) + 4, data)


def from_advertisement(body: bytes, most: int = MOST_REFS) -> Advertisement | Capabilities:
    """Parse the answer to ``info/refs``, of protocol version 0, 1 or 2; raises ValueError."""
    lines = _until_flush(_behind_service(lines_of(body)))
    first = next(lines, None)
    if first == b"version 2":
        pairs = [each.decode("utf-8", "replace").partition("=") for each in lines]
        return Capabilities(values={name: value for name, _, value in pairs})
    if first == b"version 1":
        first = next(lines, None)
    if first is None:  # so git 2.39 answers for an empty repository
        return Advertisement()
    return _from_v0(first, lines, most)


def from_ls_refs(body: bytes, most: int = MOST_REFS) -> Advertisement:
    """Parse the answer to the command ``ls-refs`` of protocol version 2; raises ValueError."""
    refs = dict[str, GitRef]()
    for each in _until_flush(lines_of(body)):
        object_id, space, rest = each.partition(b" ")
        if not space:
            raise ValueError("a line that is not a ref")
        name, *attributes = rest.split(b" ")
        if not all(b":" in attribute for attribute in attributes):
            raise ValueError("a ref with a blank in its name, which git does not allow")
        values = dict(attribute.partition(b":")[::2] for attribute in attributes)
        if name != b"HEAD":
            peeled = _object_id(values[b"peeled"]) if b"peeled" in values else None
            _add(refs, GitRef(_text(name), _object_id(object_id), peeled), most)
    return Advertisement(refs=tuple(refs.values()))


def ls_refs_request(capabilities: Capabilities, prefixes: Iterable[str]) -> bytes:
    """Encode the command that asks for the refs below some prefixes, tags with their commits."""
    command = line("command=ls-refs")
    if "agent" in capabilities.values:
        command += line("agent=git/bitbucket-mirror")
    if "object-format" in capabilities.values:
        command += line(f"object-format={capabilities.values['object-format']}")
    arguments = ["peel", *(f"ref-prefix {prefix}" for prefix in prefixes)]
    return command + b"0001" + b"".join(line(argument) for argument in arguments) + b"0000"


def _behind_service(lines: Iterator[bytes | None]) -> Iterator[bytes | None]:
    """Skip the name of the service and its flush, which a server of version 2 may leave out."""
    first = next(lines, b"")
    if first != b"# service=git-upload-pack":
        yield first
    elif next(lines, b"") is not None:
        raise ValueError("no flush after the name of the service")
    yield from lines


def _until_flush(lines: Iterator[bytes | None]) -> Iterator[bytes]:
    """Yield the lines before the final flush; raises ValueError if the answer ends without one."""
    for each in lines:
        if each is None:
            if any(True for _ in lines):
                raise ValueError("a flush within the refs")
            return
        yield each
    raise ValueError("the answer does not end with a flush")


def _from_v0(line_of_first: bytes, others: Iterable[bytes], most: int) -> Advertisement:
    """Parse refs; the first line has the capabilities behind a NUL."""
    first, nul, _ = line_of_first.partition(b"\0")
    if not nul:
        raise ValueError("the first ref has no capabilities")
    refs = dict[str, GitRef]()
    for each in chain((first,), others):
        object_id, space, name = each.partition(b" ")
        if name == _NO_REFS:
            continue
        if not space or not name or b" " in name:
            raise ValueError("a line that is not a ref")
        if each.startswith(b"shallow "):
            continue
        text = _text(name.removesuffix(b"^{}"))
        if not name.endswith(b"^{}"):
            _add(refs, GitRef(text, _object_id(object_id)), most)
        elif text in refs:
            refs[text] = msgspec.structs.replace(refs[text], peeled=_object_id(object_id))
        else:
            raise ValueError("a peeled tag without the tag")
    refs.pop("HEAD", None)
    return Advertisement(refs=tuple(refs.values()))


def _add(refs: dict[str, GitRef], ref: GitRef, most: int) -> None:
    """Add a ref; raises ValueError for a repeated name, and for one ref too many."""
    if refs.setdefault(ref.name, ref) is not ref:
        raise ValueError("two refs of one name")
    if len(refs) > most:
        raise ValueError(f"more than {most:,} refs")


def _object_id(text: bytes) -> str:
    return "" if text in _NO_OBJECT else checked_id(text.decode("ascii", "replace"))


def _text(name: bytes) -> str:
    r"""Decode a name. A byte that is not UTF-8 becomes ``\xNN``, so that different names stay different.

    git allows no backslash in names; one that a server sends nevertheless becomes ``\x5c``. Raises ValueError
    for a name that is empty or has a control character: the answer is damaged.
    """
    if name.endswith(b"/") or _CONTROL.search(name):
        raise ValueError("a name that no ref has")
    return name.replace(b"\\", rb"\x5c").decode("utf-8", "backslashreplace")


BRANCHES, TAGS = "refs/heads/", "refs/tags/"
GIT_AGENT = f"git/2.47.0 ({USER_AGENT})"  # without "git/" Bitbucket answers with a web page
TOKEN_USER = "x-token-auth"  # noqa: S105 - a user name
API_TOKEN_USER = "x-bitbucket-api-token-auth"  # noqa: S105 - a user name

_ASK = "/info/refs?service=git-upload-pack"
_TYPE = "application/x-git-upload-pack-"

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_UNREADABLE = "the server names no commit: the ref is damaged there"


class GitRefs:
    """Reads the refs of git repositories; `http` asks the git host."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def fetch_refs(self, key: RepositoryKey) -> Page[Ref]:
        """Read all branches and tags at once."""
        found, answer = self._advertisement(key)
        refs = [ref for named in found.refs if (ref := to_ref(named)) is not None]
        rows = tuple(ref for ref in refs if ref.target_hash)
        bad = tuple(BadRow(what=ref.name, error=_UNREADABLE) for ref in refs if not ref.target_hash)
        return Page(rows=rows, next=None, size=len(refs), date=answer.date, bad=bad)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _advertisement(self, key: RepositoryKey) -> tuple[Advertisement, Response]:
        """Request refs, by a second request if the server speaks version 2."""
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
        """Request refs by protocol version 2, from the address that the first request was redirected to."""
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
    """Convert a ref; None for what is neither branch nor tag (notes, pull requests)."""
    # An annotated tag is an object of its own, which names the commit.
    target = named.object_id if named.peeled is None else named.peeled
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
