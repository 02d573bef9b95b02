"""Git's smart HTTP protocol for `git ls-remote`: branches and tags, but no objects to fetch."""

import gzip
from collections.abc import Iterable, Iterator

from mirror.sandbox.datacenter import git_refs
from mirror.sandbox.exchange import HTML, TEXT, HttpError, Request, SandboxResponse, no_credentials
from mirror.sandbox.model import Principal, SandboxRef, SandboxRepository
from mirror.sandbox.world import World

_AGENT = "agent=git/sandbox"
_NOBODY = "0" * 40
_FLUSH = b"0000"
_UNCACHED = {"Cache-Control": "no-cache"}


def is_git(path: str) -> bool:
    """Return whether a path is one of git's."""
    return path.rstrip("/").endswith((".git/info/refs", ".git/git-upload-pack"))


class Git:
    """Answers git's requests: `/owner/slug.git` for the cloud, `/scm/key/slug.git` for Data Center."""

    def __init__(self, world: World, request: Request, caller: Principal) -> None:
        self._world = world
        self._request = request
        self._caller = caller

    def answer(self) -> SandboxResponse:
        """Answer the request."""
        request = self._request
        if "git/" not in request.headers.get("user-agent", ""):  # a browser gets the page of the repository
            return SandboxResponse(200, b"<!DOCTYPE html><title>Bitbucket</title>", HTML)
        if request.path.endswith("/") or "//" in request.path:
            return SandboxResponse(405, b"Method Not Allowed", TEXT)
        repository, _, service = request.path.partition(".git/")
        row = self._repository(repository.strip("/").split("/"))
        is_v2 = "version=2" in request.headers.get("git-protocol", "")
        match request.method, service:
            case "GET", "info/refs" if request.parameters.get("service") == "git-upload-pack":
                lines = _capabilities() if is_v2 else _advertised(row, git_refs(self._world, row))
                return _git_answer("advertisement", b"".join(lines))
            case "POST", "git-upload-pack" if is_v2:
                return self._command(row)
            case _:
                return SandboxResponse(403, b"Only git-upload-pack is served here", TEXT)

    def _repository(self, parts: list[str]) -> SandboxRepository:
        is_datacenter = parts[0] == "scm"
        names = parts[1:] if is_datacenter else parts
        row = self._world.find(names[0].removeprefix("~"), names[1]) if len(names) == 2 else None
        if row is not None and self._world.can_see(self._caller, row) and (is_datacenter or row.scm == "git"):
            return row
        if self._caller.kind == "anonymous":
            raise HttpError(no_credentials())
        raise HttpError(SandboxResponse(404, b"Repository not found", TEXT))

    def _command(self, row: SandboxRepository) -> SandboxResponse:
        body = self._request.body
        if self._request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        lines = [line.removesuffix("\n") for line in _lines(body)]
        if lines[:1] != ["command=ls-refs"]:
            message = "there is nothing to fetch in a sandbox"
            return _git_answer("result", _line(f"ERR {message}\n"))
        return _git_answer("result", b"".join(_listed(row, git_refs(self._world, row), lines)) + _FLUSH)


def _git_answer(kind: str, body: bytes) -> SandboxResponse:
    return SandboxResponse(200, body, f"application/x-git-upload-pack-{kind}", dict(_UNCACHED))


def _line(text: str) -> bytes:
    data = text.encode()
    return f"{len(data) + 4:04x}".encode() + data


def _lines(body: bytes) -> Iterator[str]:
    position = 0
    while position + 4 <= len(body):
        try:
            length = int(body[position : position + 4], 16)
        except ValueError:
            raise HttpError(SandboxResponse(400, b"bad line length", TEXT)) from None
        if length >= 4:
            yield body[position + 4 : position + length].decode(errors="replace")
        position += max(4, length)


def _head(row: SandboxRepository, refs: Iterable[SandboxRef]) -> SandboxRef | None:
    return next((ref for ref in refs if ref.kind == "branch" and ref.name == row.main_branch), None)


def _advertised(row: SandboxRepository, refs: list[SandboxRef]) -> Iterator[bytes]:
    """Yield all refs in the form of protocol version 0."""
    head = _head(row, refs)
    capabilities = f"multi_ack side-band-64k ofs-delta shallow no-progress object-format=sha1 {_AGENT}"
    rows = []
    if head is not None:
        capabilities = f"symref=HEAD:{head.path} {capabilities}"
        rows.append((head.target, "HEAD"))
    for ref in refs:
        if ref.kind == "branch" or ref.annotation is None:
            rows.append((ref.target, ref.path))
        else:
            rows += [(ref.annotation.object_id, ref.path), (ref.target, f"{ref.path}^{{}}")]
    yield _line("# service=git-upload-pack\n") + _FLUSH
    # What git sends where there are no refs.
    (first, name), *rest = rows or [(_NOBODY, "capabilities^{}")]
    yield _line(f"{first} {name}\0{capabilities}\n")
    for target, path in rest:
        yield _line(f"{target} {path}\n")
    yield _FLUSH


def _capabilities() -> Iterator[bytes]:
    yield _line("# service=git-upload-pack\n") + _FLUSH
    for text in ("version 2", _AGENT, "ls-refs=unborn", "fetch=shallow filter", "object-format=sha1"):
        yield _line(f"{text}\n")
    yield _FLUSH


def _listed(row: SandboxRepository, refs: list[SandboxRef], arguments: list[str]) -> Iterator[bytes]:
    """Yield the refs that the command `ls-refs` of protocol version 2 selects."""
    prefixes = tuple(each.removeprefix("ref-prefix ") for each in arguments if each.startswith("ref-prefix "))
    head = _head(row, refs)
    if "HEAD".startswith(prefixes or ""):
        if head is not None:
            symref = f" symref-target:{head.path}" if "symrefs" in arguments else ""
            yield _line(f"{head.target} HEAD{symref}\n")
        elif "unborn" in arguments:
            yield _line("unborn HEAD symref-target:refs/heads/master\n")
    for ref in refs:
        if not ref.path.startswith(prefixes or ""):
            continue
        if ref.kind == "branch" or ref.annotation is None:
            yield _line(f"{ref.target} {ref.path}\n")
        else:
            peeled = f" peeled:{ref.target}" if "peel" in arguments else ""
            yield _line(f"{ref.annotation.object_id} {ref.path}{peeled}\n")
