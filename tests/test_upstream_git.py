"""Refs by git's protocol, read strictly: from prepared answers, a real git server and the sandbox."""

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from inspect import signature
from itertools import chain, repeat
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upstream_fakes import NOON, FakeClock, MemoryLedger, answer, faked, page

from mirror.config import UpstreamConfig
from mirror.errors import CredentialsRefused, UpstreamBusy, UpstreamRefused, UpstreamShapeError
from mirror.model import Ref, RepositoryKey
from mirror.upstream.connect import connect
from mirror.upstream.git import (
    Advertisement,
    Capabilities,
    GitRef,
    from_advertisement,
    from_ls_refs,
    git_root,
    line,
    lines_of,
)
from mirror.upstream.protocol import Upstream

KEY = RepositoryKey(uuid="{1}", full_name="ws/repo.name", scm="git")
ONE, TWO, THREE = "1" * 40, "2" * 40, "3" * 40
SERVICE = line("# service=git-upload-pack") + b"0000"
ADVERTISEMENT = "application/x-git-upload-pack-advertisement"
RESULT = "application/x-git-upload-pack-result"
V0 = (
    SERVICE
    + line(f"{ONE} HEAD\0multi_ack symref=HEAD:refs/heads/main object-format=sha1 agent=git/2.39")
    + line(f"{ONE} refs/heads/main")
    + line(f"{TWO} refs/notes/commits")
    + line(f"{TWO} refs/tags/light")
    + line(f"{THREE} refs/tags/v1")
    + line(f"{TWO} refs/tags/v1^{{}}")
    + b"0000"
)
V2 = (
    SERVICE
    + b"".join(map(line, ["version 2", "agent=git/2.39", "ls-refs=unborn", "object-format=sha1"]))
    + b"0000"
)
LISTED = (
    line(f"{ONE} HEAD symref-target:refs/heads/main")
    + line(f"{ONE} refs/heads/main")
    + line(f"{TWO} refs/tags/light")
    + line(f"{THREE} refs/tags/v1 peeled:{TWO}")
    + b"0000"
)
REFS = (
    Ref(kind="branch", name="main", target_hash=ONE),
    Ref(kind="tag", name="light", target_hash=TWO),
    Ref(kind="tag", name="v1", target_hash=TWO),
)


def advertised(body: bytes = V0) -> httpx.Response:
    """Prepare an answer to ``info/refs``."""
    return answer(body, content_type=ADVERTISEMENT)


def test_version_0_is_one_request() -> None:
    """Tags have their commits, other refs are left out, and git's budget counts."""
    ours = faked(advertised(), refs="git")
    found = ours.upstream.fetch_refs(KEY, None)
    assert found.rows == REFS
    assert (found.next, found.size, found.date) == (None, 3, NOON)
    request = ours.server.asked[0]
    assert str(request.url) == "https://bitbucket.org/ws/repo.name.git/info/refs?service=git-upload-pack"
    assert "git/" in request.headers["user-agent"]
    assert request.headers["git-protocol"] == "version=2"
    assert (ours.budget.requests, ours.budget.git_requests) == (0, 1)
    assert ours.budget.limit("git") == 57_000


def test_version_2_is_two_requests() -> None:
    """The second one requests branches and tags only, with peeled commits."""
    ours = faked(advertised(V2), answer(LISTED, content_type=RESULT), refs="git")
    assert ours.upstream.fetch_refs(KEY, None).rows == REFS
    request = ours.server.asked[1]
    assert (request.method, str(request.url)) == (
        "POST",
        "https://bitbucket.org/ws/repo.name.git/git-upload-pack",
    )
    head, _, arguments = request.content.partition(b"0001")
    assert list(lines_of(head)) == [b"command=ls-refs", b"agent=git/bitbucket-mirror", b"object-format=sha1"]
    assert list(lines_of(arguments)) == [
        b"peel",
        b"ref-prefix refs/heads/",
        b"ref-prefix refs/tags/",
        None,
    ]
    assert ours.budget.git_requests == 2


@pytest.mark.parametrize(
    "body",
    [
        SERVICE + b"0000",
        SERVICE + line(f"{'0' * 40} capabilities^{{}}\0agent=git/2") + b"0000",
        line("version 2") + b"0000",
        SERVICE + line("version 1") + line(f"{ONE} refs/notes/x\0agent=git/2") + b"0000",
    ],
)
def test_empty_repositories_are_read(body: bytes) -> None:
    """By a flush or a zero id; version 2 may omit the service line."""
    found = from_advertisement(body)
    assert isinstance(found, Capabilities) or [each for each in found.refs if "heads" in each.name] == []


def test_detached_heads_and_sha256_are_read() -> None:
    """A HEAD without symref is no branch; longer object ids are valid."""
    body = SERVICE + line(f"{'a' * 64} HEAD\0agent=x") + line(f"{'a' * 64} refs/heads/b") + b"0000"
    assert from_advertisement(body) == Advertisement(refs=(GitRef("refs/heads/b", "a" * 64),))


BROKEN = {
    "no lines": b"hello",
    "cut off": V0[:-20],
    "no flush": V0[:-4],
    "no service flush": line("# service=git-upload-pack") + line(f"{ONE} HEAD\0a") + b"0000",
    "flush within": SERVICE + line(f"{ONE} HEAD\0a") + b"0000" + line(f"{ONE} refs/heads/x") + b"0000",
    "length 3": SERVICE + b"0003",
    "too long": SERVICE + b"fff5" + b"x" * 70_000,
    "no capabilities": SERVICE + line(f"{ONE} HEAD") + b"0000",
    "no object id": SERVICE + line("xyz HEAD\0a") + line("xyz refs/heads/b") + b"0000",
    "no name": SERVICE + line(f"{ONE}\0a") + b"0000",
    "peeled first": SERVICE + line(f"{ONE} refs/tags/v^{{}}\0a") + b"0000",
    "version 2 without ls-refs": SERVICE + line("version 2") + line("fetch=shallow") + b"0000",
    "nothing": b"",
    "a name twice": SERVICE + line(f"{ONE} refs/heads/b\0c") + line(f"{TWO} refs/heads/b") + b"0000",
    "a blank in a name": SERVICE + line(f"{ONE} refs/tags/a b\0c") + b"0000",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_is_not_git_is_refused(body: bytes) -> None:
    """Half an answer would look like deleted branches."""
    with pytest.raises(UpstreamShapeError, match="not as git answers"):
        faked(advertised(body), refs="git").upstream.fetch_refs(KEY, None)


def raw(data: bytes) -> bytes:
    """Write a line of bytes, not necessarily UTF-8."""
    return b"%04x%s" % (len(data) + 4, data)


NAMES = {
    b"caf\xe8": "caf\\xe8",
    b"caf\xe9": "caf\\xe9",
    b"caf\\xe9": "caf\\x5cxe9",
    "café".encode(): "café",
    b"\xed\xa0\x80": "\\xed\\xa0\\x80",
}


@pytest.mark.parametrize("version", [0, 2])
def test_names_that_are_not_utf_8_stay_distinct(version: int) -> None:
    r"""Their bytes are written ``\xNN``; a name that looks the same stays another one."""
    one = ONE.encode()
    refs = [one + b" refs/heads/" + name for name in NAMES]
    if version == 0:
        first = raw(refs[0] + b"\0symref=HEAD:refs/heads/caf\xe9")
        found = from_advertisement(SERVICE + first + b"".join(map(raw, refs[1:])) + b"0000")
    else:
        head = raw(one + b" HEAD symref-target:refs/heads/caf\xe9")
        found = from_ls_refs(head + b"".join(map(raw, refs)) + b"0000")
    assert isinstance(found, Advertisement)
    assert [ref.name for ref in found.refs] == [f"refs/heads/{name}" for name in NAMES.values()]


@pytest.mark.parametrize("name", [b"", b"a\0b", b"a\rb", b"\x1b[31mred", b"a\x7f", b"a/"])
@pytest.mark.parametrize("version", [0, 2])
def test_a_name_that_no_ref_has_is_refused(name: bytes, version: int) -> None:
    """An empty one or one with control characters: no text of the mirror has a NUL."""
    lines = raw(ONE.encode() + b" refs/heads/" + name) + b"0000"
    read: Callable[[bytes], object] = from_ls_refs
    if version == 0:
        read, lines = from_advertisement, SERVICE + raw(ONE.encode() + b" refs/heads/main\0agent=x") + lines
    with pytest.raises(ValueError, match="a name that no ref has"):
        read(lines)


@pytest.mark.parametrize("broken", [b"0004", b"0005\n", line(ONE)], ids=["empty", "blank", "no name"])
def test_a_line_without_a_ref_is_refused_in_plain_words(broken: bytes) -> None:
    """The error is shown to people."""
    with pytest.raises(ValueError, match="a line that is not a ref"):
        from_ls_refs(broken + LISTED)


def test_a_tag_whose_commit_the_server_cannot_read_is_damaged() -> None:
    """The tag's own id is not that of a commit."""
    listed = line(f"{ONE} refs/heads/main") + line(f"{THREE} refs/tags/v1 peeled:{'0' * 40}") + b"0000"
    ours = faked(advertised(V2), answer(listed, content_type=RESULT), refs="git")
    found = ours.upstream.fetch_refs(KEY, None)
    assert [ref.name for ref in found.rows] == ["main"]
    assert [bad.what for bad in found.bad] == ["v1"]


@given(st.lists(st.binary(min_size=1, max_size=8), unique=True))
def test_no_two_names_are_merged(names: list[bytes]) -> None:
    """Of any bytes that a name can have."""
    kept = [name for name in names if not name.endswith(b"/") and not set(name) & {*range(33), 127}]
    body = b"".join(raw(ONE.encode() + b" refs/heads/" + name) for name in kept) + b"0000"
    found = from_ls_refs(body)
    assert len(found.refs) == len(kept)


def test_an_endless_advertisement_fails_within_bounds() -> None:
    """It ends at a length, and is ignored."""
    begun = SERVICE + raw(ONE.encode() + b" HEAD\0agent=x")
    lines = b"".join(raw(b"%s refs/heads/%d" % (ONE.encode(), number)) for number in range(20_000))
    endless = httpx.Response(
        200, headers={"content-type": ADVERTISEMENT}, stream=Stream(chain([begun], repeat(lines)))
    )
    with pytest.raises(UpstreamShapeError, match="larger than"):
        faked(lambda _: endless, refs="git", attempts=1).upstream.fetch_refs(KEY, None)


@pytest.mark.parametrize("read", [from_advertisement, from_ls_refs])
def test_more_refs_than_there_is_room_for_fail(
    read: Callable[..., Advertisement | Capabilities],
) -> None:
    """More than half a million would fill the memory."""
    begun = SERVICE + raw(ONE.encode() + b" HEAD\0agent=x") if read is from_advertisement else b""
    refs = [raw(b"%s refs/heads/%d" % (ONE.encode(), number)) for number in range(2_001)]
    found = read(begun + b"".join(refs[:1_999]) + b"0000", 2_000)
    assert isinstance(found, Advertisement)
    assert len(found.refs) == 1_999
    with pytest.raises(ValueError, match="more than 2,000 refs"):
        read(begun + b"".join(refs) + b"0000", 2_000)
    assert signature(read).parameters["most"].default == 500_000


class Stream(httpx.SyncByteStream):
    """A body that is generated while it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces


@given(st.binary(max_size=300))
def test_random_bytes_are_parsed_or_refused(body: bytes) -> None:
    """Any input gives values or ValueError."""
    for read in (from_advertisement, from_ls_refs):
        for candidate in (body, SERVICE + body + b"0000", line(body.decode("latin-1")) + b"0000"):
            try:
                read(candidate)
            except ValueError:
                continue


def test_each_refusal_of_a_git_server_has_its_own_error() -> None:
    """ERR lines, missing repositories, refused credentials and web pages have their own errors."""
    ours = faked(advertised(SERVICE + line("ERR access denied or repository gone")), refs="git")
    with pytest.raises(UpstreamRefused, match="access denied"):
        ours.upstream.fetch_refs(KEY, None)
    with pytest.raises(UpstreamRefused, match="404"):
        faked(answer("Repository not found", 404), refs="git").upstream.fetch_refs(KEY, None)
    with pytest.raises(CredentialsRefused):
        faked(answer("", 401), refs="git", credential="token").upstream.fetch_refs(KEY, None)
    with pytest.raises(UpstreamBusy):
        faked(answer("", 503), refs="git").upstream.fetch_refs(KEY, None)
    ours = faked(answer("<html>Sign in</html>", content_type="text/html"), refs="git")
    with pytest.raises(UpstreamShapeError, match="Sign in"):
        ours.upstream.fetch_refs(KEY, None)
    assert len(ours.server.asked) == 3


def test_the_second_request_follows_a_redirect_of_the_first() -> None:
    """After a renaming, ls-refs goes to the new address too."""
    moved = answer("", 301, location="/ws/new.git/info/refs?service=git-upload-pack")
    ours = faked(moved, advertised(V2), answer(LISTED, content_type=RESULT), refs="git")
    assert ours.upstream.fetch_refs(KEY, None).rows == REFS
    assert ours.server.urls[2] == "https://bitbucket.org/ws/new.git/git-upload-pack"


@pytest.mark.parametrize(
    ("credential", "user"),
    [("me@example.com:t", "x-bitbucket-api-token-auth"), ("t", "x-token-auth"), ("me:t", "me")],
)
def test_git_uses_its_own_user_names(credential: str, user: str) -> None:
    """An e-mail address is no user name of git; a token alone needs one."""
    ours = faked(advertised(), refs="git", credential=credential)
    ours.upstream.fetch_refs(KEY, None)
    sent = ours.server.asked[0].headers["authorization"]
    assert sent == httpx.BasicAuth(user, "t")._auth_header


def test_oauth_tokens_go_as_a_password() -> None:
    """The token is fetched as for the API, and sent to git for x-token-auth."""
    grant = answer({"access_token": "granted", "expires_in": 3600})
    ours = faked(grant, advertised(), refs="git", credential="oauth:k:s")
    ours.upstream.fetch_refs(KEY, None)
    assert ours.server.urls[0] == "https://bitbucket.org/site/oauth2/access_token"
    assert (
        ours.server.asked[1].headers["authorization"]
        == httpx.BasicAuth("x-token-auth", "granted")._auth_header
    )


def test_everything_but_git_repositories_goes_to_the_api() -> None:
    """Git cannot read hg, and repositories are listed as usual."""
    ours = faked(page(), refs="git")
    ours.upstream.fetch_refs(RepositoryKey(uuid="{1}", full_name="w/s", scm="hg"), None)
    ours.upstream.fetch_repositories("w", "created", None)
    assert [request.url.host for request in ours.server.asked] == ["api.bitbucket.org"] * 2
    assert ours.upstream.anonymous


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("https://api.bitbucket.org/2.0", "https://bitbucket.org"),
        ("http://127.0.0.1:8002/2.0", "http://127.0.0.1:8002"),
    ],
)
def test_where_the_cloud_keeps_its_repositories(url: str, root: str) -> None:
    """On the web host."""
    assert git_root(url, datacenter=False) == root


def test_where_a_data_center_keeps_its_repositories() -> None:
    """Below /scm, beside the API, also with a context path."""
    assert (
        git_root("https://host:7990/bitbucket/rest/api/1.0", datacenter=True)
        == "https://host:7990/bitbucket/scm"
    )


GIT = shutil.which("git")


def git(where: Path, *arguments: str) -> str:
    """Run git, as nobody in particular."""
    environment = os.environ | {
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@example.com",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    run = subprocess.run(
        ["git", "-C", str(where), *arguments], check=True, capture_output=True, text=True, env=environment
    )
    return run.stdout.strip()


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a repository with branches, both kinds of tags and a note, and an empty one."""
    root = tmp_path_factory.mktemp("repositories")
    full, empty = root / "ws" / "full.git", root / "ws" / "empty.git"
    for path in (full, empty):
        path.mkdir(parents=True)
        git(path, "init", "--bare", "-q", "-b", "trunk")
    tree = git(full, "hash-object", "-t", "tree", "-w", os.devnull)
    commit = git(full, "commit-tree", tree, "-m", "first")
    for name in ("refs/heads/trunk", "refs/heads/feature/ünïcode", "refs/tags/light", "refs/notes/x"):
        git(full, "update-ref", name, commit)
    git(full, "tag", "-a", "v1", "-m", "one", commit)
    git(full, "tag", "-a", "v1-of-v1", "-m", "nested", "v1")
    (full / "refs" / "heads" / "emptied").touch()  # as a crash of the server leaves it
    return root


@pytest.fixture(scope="module", params=["version 2", "version 0"])
def backend(repositories: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve them by git's own program, with and without the newer protocol."""
    if GIT is None:
        pytest.skip("git is not installed")
    program = Path(git(repositories, "--exec-path")) / "git-http-backend"
    if not program.exists():
        pytest.skip("git has no http-backend here")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path, _, query = self.path.partition("?")
            run = subprocess.run(
                [str(program)],
                input=body,
                capture_output=True,
                check=False,
                env=os.environ
                | {
                    "GIT_PROJECT_ROOT": str(repositories),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_PROTOCOL": self.headers["Git-Protocol"] if request.param == "version 2" else "",
                    "REQUEST_METHOD": self.command,
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                },
            )
            head, _, content = run.stdout.partition(b"\r\n\r\n")
            headers = dict(each.split(": ", 1) for each in head.decode().split("\r\n"))
            self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def over_http(origin: str, **settings: str) -> Upstream:
    """Connect to a real server."""
    config = UpstreamConfig(name="git", kind="sandbox", url=f"{origin}/2.0", refs="git", **settings)  # type: ignore[arg-type]
    time = FakeClock()
    upstream, _ = connect(
        config, ledger=MemoryLedger(), wait=time.wait, clock=time.clock, environ={"S": "sandbox"}
    )
    return upstream


def test_a_real_git_server_is_read(backend: str, repositories: Path) -> None:
    """Branches and tags equal those of git itself; one that is damaged there hides no others."""
    with closing(over_http(backend)) as upstream:
        key = RepositoryKey(uuid="{1}", full_name="ws/full", scm="git")
        page = upstream.fetch_refs(key, None)
        assert [bad.what for bad in page.bad] == ["emptied"]
        found = {(ref.kind, ref.name): ref.target_hash for ref in page.rows}
        commit = git(repositories / "ws" / "full.git", "rev-parse", "trunk")
        assert found == dict.fromkeys(
            [
                ("branch", "trunk"),
                ("branch", "feature/ünïcode"),
                ("tag", "light"),
                ("tag", "v1"),
                ("tag", "v1-of-v1"),
            ],
            commit,
        )
        empty = RepositoryKey(uuid="{2}", full_name="ws/empty", scm="git")
        assert upstream.fetch_refs(empty, None).rows == ()
        with pytest.raises(UpstreamRefused, match="404"):
            upstream.fetch_refs(RepositoryKey(uuid="{3}", full_name="ws/none", scm="git"), None)
