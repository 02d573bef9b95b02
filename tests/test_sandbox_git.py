"""The sandbox by git's smart HTTP protocol, read with git itself where it is installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live_server import WITHOUT_TLS

from mirror.sandbox import RunningSandbox, Sandbox, World, repository_refs, running

GIT = {"User-Agent": "git/2.47.0"}
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with running(Sandbox(World(300))) as found:
        yield found


def ls_remote(url: str, version: int, home: Path) -> dict[str, str]:
    """Return the refs of a repository, read by git."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "HOME": str(home), "no_proxy": "*"}
    command = ["git", "-c", f"protocol.version={version}", "ls-remote", "--symref", url]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home, check=False)
    if done.returncode:
        raise LookupError(done.stderr)
    return {name: target for target, name in (line.split("\t") for line in done.stdout.splitlines())}


@needs_git
@pytest.mark.parametrize("version", [0, 2])
def test_git_and_the_api_return_the_same_refs(sandbox: RunningSandbox, version: int, tmp_path: Path) -> None:
    """Branches, peeled tags and HEAD, in both versions of the protocol."""
    for name in ("1team/special-refs", "1team/many-refs", "mcatalbas/codeigniter"):
        found = ls_remote(f"{sandbox.origin}/{name}.git", version, tmp_path)
        for ref in repository_refs(sandbox.sandbox.world, name):
            path = f"refs/{'tags' if ref['type'] == 'tag' else 'heads'}/{ref['name']}"
            assert found.pop(f"{path}^{{}}", None) or found[path] == ref["target"]["hash"]
            del found[path]
        assert found.keys() == {"HEAD"}


@needs_git
@pytest.mark.parametrize("version", [0, 2])
def test_git_reads_an_empty_repository_and_is_refused_a_private_one(
    sandbox: RunningSandbox, version: int, tmp_path: Path
) -> None:
    """No refs are no error. Credentials in the URL give access."""
    assert ls_remote(f"{sandbox.origin}/1team/never-pushed.git", version, tmp_path) == {}
    private = "erik/org.eclipse.mylyn.bitbucket.git"
    with pytest.raises(LookupError):
        ls_remote(f"{sandbox.origin}/{private}", version, tmp_path)
    host = sandbox.origin.removeprefix("http://")
    for user in ("x-token-auth", "x-bitbucket-api-token-auth", "jespern"):
        assert ls_remote(f"http://{user}:sandbox@{host}/{private}", version, tmp_path)
    assert ls_remote(f"{sandbox.origin}/scm/1team/special-refs.git", version, tmp_path)


def test_only_git_gets_an_answer_at_the_exact_url(sandbox: RunningSandbox) -> None:
    """Only git gets an answer, only at the exact URL, and not for Mercurial."""
    refs = "info/refs?service=git-upload-pack"
    with httpx.Client(verify=WITHOUT_TLS, base_url=sandbox.origin, trust_env=False, headers=GIT) as client:
        good = client.get(f"/1team/special-refs.git/{refs}")
        assert good.headers["content-type"] == "application/x-git-upload-pack-advertisement"
        assert good.content.startswith(b"001e# service=git-upload-pack\n0000")
        page = client.get(f"/1team/special-refs.git/{refs}", headers={"User-Agent": "python"})
        assert page.headers["content-type"].startswith("text/html")
        for path, status in (
            ("/1team/special-refs.git/info/refs", 403),
            (f"/1team//special-refs.git/{refs}", 405),
            ("/1team/special-refs.git/info/refs/?service=git-upload-pack", 405),
            (f"/1team/nothing.git/{refs}", 401),
            (f"/jespern/django-piston.git/{refs}", 401),
            (f"/erik/org.eclipse.mylyn.bitbucket.git/{refs}", 401),
        ):
            assert client.get(path).status_code == status, path
        gone = client.get(f"/1team/nothing.git/{refs}", auth=("erik", "sandbox"))
        assert gone.status_code == 404
        for user, password in (("erik@example.com", "sandbox"), ("erik", "wrong"), ("x-token-auth", "wrong")):
            refused = client.get(f"/1team/special-refs.git/{refs}", auth=(user, password))
            assert refused.status_code == 401
        assert client.get("/2.0/repositories/erik", auth=("x-token-auth", "sandbox")).status_code == 401


def test_git_requests_are_counted_separately_and_cost_no_budget() -> None:
    """On Bitbucket, they have a much larger quota of their own."""
    sandbox = Sandbox(World(60), anonymous_requests_per_hour=1)
    with (
        running(sandbox) as found,
        httpx.Client(verify=WITHOUT_TLS, base_url=found.origin, trust_env=False, headers=GIT) as client,
    ):
        for _ in range(3):
            path = "/mcatalbas/codeigniter.git/info/refs?service=git-upload-pack"
            assert client.get(path).status_code == 200
        assert client.get("/2.0/repositories/erik").status_code == 200
        assert sandbox.state()["by_kind"] == {"git": 3, "listing": 1}


def test_protocol_2_lists_the_selected_refs(sandbox: RunningSandbox) -> None:
    """Prefixes filter; peel and symrefs add details; fetching is refused."""

    def line(text: str) -> bytes:
        return f"{len(text) + 4:04x}{text}".encode()

    with httpx.Client(
        verify=WITHOUT_TLS,
        base_url=sandbox.origin,
        trust_env=False,
        headers={**GIT, "Git-Protocol": "version=2"},
    ) as client:
        offered = client.get("/1team/special-refs.git/info/refs?service=git-upload-pack").content
        assert b"version 2\n" in offered
        assert b"ls-refs" in offered
        ask = (
            line("command=ls-refs\n")
            + b"0001"
            + line("peel\n")
            + line("ref-prefix refs/tags/special\n")
            + b"0000"
        )
        listed = client.post("/1team/special-refs.git/git-upload-pack", content=ask)
        assert listed.headers["content-type"] == "application/x-git-upload-pack-result"
        assert listed.content.count(b"refs/") == 1
        assert b"peeled:" in listed.content
        refused = client.post(
            "/1team/special-refs.git/git-upload-pack", content=line("command=fetch") + b"0000"
        )
        assert b"ERR" in refused.content
        assert client.post("/1team/special-refs.git/git-upload-pack", content=b"zzzz").status_code == 400
