"""Pages at the upstream: in each server's form, sent addresses first, nothing unsafe."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from asgi_client import AsgiClient, client_of
from cli_runner import Folder
from fixtures_db import LATER, FixtureDb, hg_ref, owner, repository

from mirror.addresses import Told, WebPages, is_clone_address, safe_external
from mirror.model import Repository
from mirror.queries.repositories import repository_details
from mirror.queries.rows import UpstreamRow
from mirror.queries.visibility import OPERATOR
from mirror.store.files import open_reader

DOCS = Path(__file__).resolve().parent.parent / "docs"
CLOUD = "https://api.bitbucket.org/2.0"
HASH = "a" * 40


def pages(kind: str, url: str) -> WebPages:
    """Return the builder for an upstream."""
    return UpstreamRow(1, "one", kind, url).pages


@pytest.mark.parametrize(
    ("kind", "url", "repository", "branch", "tag", "commit"),
    [
        ("cloud", CLOUD, "https://bitbucket.org/o/s", "/branch/", "/commits/tag/", "/commits/"),
        ("legacy", "https://api.bitbucket.org/1.0", "https://bitbucket.org/o/s", "/branch/", "/commits/tag/",
         "/commits/"),
        ("legacy", "https://git.example/bb/api/1.0/", "https://git.example/bb/o/s", "/branch/",
         "/commits/tag/", "/commits/"),
        ("datacenter", "https://git.example/rest/api/1.0", "https://git.example/projects/o/repos/s/browse",
         "?at=refs%2Fheads%2F", "?at=refs%2Ftags%2F", "/../commits/"),
        ("datacenter", "https://git.example/ctx/rest/api/latest",
         "https://git.example/ctx/projects/o/repos/s/browse", "?at=refs%2Fheads%2F", "?at=refs%2Ftags%2F",
         "/../commits/"),
    ],
)  # fmt: skip
def test_each_kind_of_server_has_addresses_of_its_own(
    kind: str, url: str, repository: str, branch: str, tag: str, commit: str
) -> None:
    """Cloud, Data Center with and without a context path, servers of API 1.0."""
    built = pages(kind, url)
    assert built.repository("o/s") == repository
    assert built.ref("o/s", "branch", "main") == f"{repository}{branch}main"
    assert built.ref("o/s", "tag", "v1") == f"{repository}{tag}v1"
    assert built.commit("o/s", HASH) == f"{repository}{commit}{HASH}".replace("browse/../", "")


@pytest.mark.parametrize(
    ("name", "in_path", "in_query"),
    [
        ("feature/x", "feature/x", "feature%2Fx"),
        ("50%", "50%25", "50%25"),
        ("a#b", "a%23b", "a%23b"),
        ("a?b", "a%3Fb", "a%3Fb"),
        ("a&b=c+d", "a&b=c+d", "a%26b%3Dc%2Bd"),
        ("with space", "with%20space", "with%20space"),
        ("größe", "gr%C3%B6%C3%9Fe", "gr%C3%B6%C3%9Fe"),
        ('"<>', "%22%3C%3E", "%22%3C%3E"),
    ],
)
def test_names_of_refs_are_encoded_as_each_server_wants_them(name: str, in_path: str, in_query: str) -> None:
    """Cloud has them in the path, where a slash stays one; Data Center in a parameter."""
    assert pages("cloud", CLOUD).ref("o/s", "branch", name) == f"https://bitbucket.org/o/s/branch/{in_path}"
    there = pages("datacenter", "https://git.example/rest/api/1.0").ref("o/s", "tag", name)
    assert there == f"https://git.example/projects/o/repos/s/browse?at=refs%2Ftags%2F{in_query}"


def test_persons_of_a_data_center_are_found_by_their_names() -> None:
    """A personal project is on its person's page, in lower case."""
    built = pages("datacenter", "https://git.example/rest/api/1.0")
    assert built.repository("~Bob/s") == "https://git.example/users/bob/repos/s/browse"
    assert built.owner("~Bob") == built.owner("Bob", is_person=True) == "https://git.example/users/bob"
    assert built.owner("PRJ") == "https://git.example/projects/PRJ"
    assert built.clone_addresses("~Bob/s", "git") == {"https": "https://git.example/scm/~bob/s.git"}


def test_clone_addresses_are_built_where_none_were_told() -> None:
    """Bitbucket serves git by https and ssh, and served Mercurial."""
    built = pages("cloud", CLOUD).clone_addresses
    assert built("o/s", "git") == {
        "https": "https://bitbucket.org/o/s.git",
        "ssh": "git@bitbucket.org:o/s.git",
    }
    assert built("o/s", "hg") == {"https": "https://bitbucket.org/o/s", "ssh": "ssh://hg@bitbucket.org/o/s"}


@pytest.mark.parametrize("name", ["o/..", "../s", "o/.", "o//s", "o/", "/s"])
def test_a_name_that_no_address_can_hold_has_none(name: str) -> None:
    """Browsers would open another page."""
    assert pages("cloud", CLOUD).repository(name) is None
    assert pages("cloud", CLOUD).ref("o/s", "branch", name.replace("o/", "b/")) is None
    assert pages("cloud", CLOUD).clone_addresses(name, "git") == {}


@pytest.mark.parametrize(
    "url", ["", "javascript:alert(1)//", "file:///etc", "ftp://x/2.0", "http://[half/2.0"]
)
def test_only_web_servers_have_pages(url: str) -> None:
    """An upstream's address with another scheme is never linked."""
    assert pages("cloud", url).repository("o/s") is None
    assert safe_external(url) is None


@pytest.mark.parametrize(
    ("address", "is_good"),
    [
        ("https://bitbucket.org/o/s.git", True),
        ("ssh://git@git.example:7999/prj/s.git", True),
        ("git@bitbucket.org:o/s.git", True),
        ("ext::sh -c touch% /tmp/x", False),
        ("--upload-pack=touch /tmp/x", False),
        ("ssh://-oProxyCommand=x/o/s", False),
        ("-u@host:o/s", False),
        ("/etc/passwd", False),
        ("file:///etc", False),
        ("", False),
    ],
)
def test_clone_addresses_run_no_program(address: str, is_good: bool) -> None:
    """Users who clone from a list trust its addresses."""
    assert is_clone_address(address) is is_good


def told(full_name: str, href: str, **said: Any) -> Repository:
    """A repository with an `html` link from a crawl without a credential."""
    named = owner(full_name.partition("/")[0])
    value = {"type": "repository", "owner": {}, "links": {"html": {"href": href}}}
    return repository(full_name, named, told=Told(value, anonymous=True), **said)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of Bitbucket Cloud, of a Data Center and of a sandbox."""
    filled = FixtureDb(tmp_path_factory.mktemp("linked") / "mirror.db")
    filled.upstream_id = filled.store.save_upstream("cloud", "cloud", CLOUD)
    filled.repositories(
        [
            repository("ann/built", clone_https="https://bitbucket.org/ann/built.git"),
            told("ann/told", "~web/elsewhere/told"),
            told("ann/evil", "javascript:alert(1)", clone_https="ext::sh -c x"),
            repository("ann/gone", clone_https="https://bitbucket.org/ann/gone.git"),
        ],
        first=True,
    )
    filled.refs("ann/built", [hg_ref("branch", "master", "a")])
    filled.refs("ann/built", [hg_ref("branch", "fix/#1 50%", "a"), hg_ref("tag", "v1", "b")], at=LATER)
    filled.gone("ann/gone")
    center = filled.store.save_upstream("center", "datacenter", "https://git.example/ctx/rest/api/1.0")
    filled.upstream_id = center
    filled.repositories([repository("PRJ/tool", owner("PRJ", kind="workspace"))], first=True)
    filled.upstream_id = filled.store.save_upstream("box", "sandbox", "http://127.0.0.1:8002/2.0")
    filled.repositories([repository("box/played")], first=True)
    filled.store.close()
    return filled.path


@pytest.fixture(scope="module")
def served(path: Path) -> AsgiClient:
    """The mirror, served."""
    return client_of(path)


@pytest.fixture
def folder(path: Path, tmp_path: Path) -> Folder:
    """A folder whose configuration names the mirror."""
    (tmp_path / "mirror.toml").write_text(f'database = "{path}"\n')
    return Folder(tmp_path)


def there(text: str) -> list[str]:
    """List the links that lead away from a page."""
    return re.findall(r'href="(https?://[^"]*|javascript:[^"]*)"', text)


def test_the_page_of_a_repository_leads_to_its_upstream(served: AsgiClient) -> None:
    """For the repository, each branch and tag, each commit, each change."""
    found = there(served.get("/-/r/ann/built").text)
    here = "https://bitbucket.org/ann/built"
    branch, tag = f"{here}/branch/fix/%231%2050%25", f"{here}/commits/tag/v1"
    assert {here, branch, tag, f"{here}/commits/{HASH}", f"{here}/commits/{'b' * 40}"} == set(found)
    assert found.count(branch) == 2  # in the list of branches, and in the history


def test_lists_lead_to_the_upstream_too(served: AsgiClient) -> None:
    """Results, an owner's repositories, changes, the feed, the home page; gone ones have no links."""
    listed = {"https://bitbucket.org/ann/built", "https://bitbucket.org/elsewhere/told"}
    evil = {"https://bitbucket.org/ann/evil"}  # what was told is not safe: the page is built
    assert set(there(served.get("/-/search?owner=ann&gone=1").text)) == listed | evil
    owned = set(there(served.get("/-/u/ann").text))
    assert listed | evil | {"https://bitbucket.org/ann/"} <= owned
    assert listed <= set(there(served.get("/").text))
    moved = {"https://bitbucket.org/ann/built/branch/fix/%231%2050%25",
             "https://bitbucket.org/ann/built/commits/tag/v1"}  # fmt: skip
    assert moved <= set(there(served.get("/-/changes?owner=ann").text))
    feed = ET.fromstring(served.get("/-/changes.atom?owner=ann").text)  # noqa: S314 - our own
    related = {one.get("href") for one in feed.iter("{http://www.w3.org/2005/Atom}link")
               if one.get("rel") == "related"}  # fmt: skip
    assert moved <= related
    assert not any("gone" in str(one) for one in related | owned)
    shown = served.get("/-/search/options?q=told").text
    assert 'data-there="https://bitbucket.org/elsewhere/told"' in shown


def test_other_upstreams_are_led_to_as_they_are(served: AsgiClient) -> None:
    """A Data Center has its own pages, a sandbox none."""
    assert there(served.get("/-/r/PRJ/tool").text) == [
        "https://git.example/ctx/projects/PRJ/repos/tool/browse"
    ]
    assert "https://git.example/ctx/projects/PRJ" in there(served.get("/-/u/PRJ").text)
    assert there(served.get("/-/r/box/played").text) == []
    assert there(served.get("/-/u/box").text) == []
    (row,) = served.json("/-/search.json?q=played")["repositories"]
    assert (row["url"], row["upstream_url"], row["clone_urls"]) == ("/-/r/box/played", None, {})


def test_results_as_data_have_the_same_links(served: AsgiClient, folder: Folder) -> None:
    """In JSON and CSV of the page and in JSON of the command."""
    rows = {row["slug"]: row for row in served.json("/-/search.json?owner=ann&gone=1")["repositories"]}
    said = json.loads(folder.run("search", "", "--owner", "ann", "--gone", "--json").out)
    assert {row["slug"]: (row["url"], row["clone_urls"]) for row in said["repositories"]} == {
        slug: (row["upstream_url"], row["clone_urls"]) for slug, row in rows.items()
    }
    assert rows["built"]["clone_urls"] == {"https": "https://bitbucket.org/ann/built.git"}
    assert rows["evil"]["clone_urls"]["https"] == "https://bitbucket.org/ann/evil.git"
    assert (rows["gone"]["upstream_url"], rows["gone"]["clone_urls"]) == (None, {})
    table = csv.DictReader(io.StringIO(served.get("/-/search.csv?owner=ann&gone=1").text))
    assert {row["slug"]: row["upstream_url"] or None for row in table} == {
        slug: row["upstream_url"] for slug, row in rows.items()
    }


def test_show_tells_the_links_of_a_repository_and_its_refs(path: Path, folder: Folder) -> None:
    """As text, and with --json for each branch, tag and commit."""
    assert "https://bitbucket.org/ann/built" in folder.run("show", "ann/built").out
    with closing(open_reader(path)) as connection:
        details = repository_details(connection, OPERATOR, "ann/built")
    assert details is not None
    shown = details.exported()
    assert shown["url"] == "https://bitbucket.org/ann/built"
    (branch,) = shown["branches"]
    assert branch["url"] == "https://bitbucket.org/ann/built/branch/fix/%231%2050%25"
    assert branch["commit_url"] == f"https://bitbucket.org/ann/built/commits/{HASH}"


def test_refs_found_anywhere_lead_to_their_pages(folder: Folder) -> None:
    """`mirror refs --json` has the page of each branch or tag, and of its commit."""
    (found,) = json.loads(folder.run("refs", "fix/", "--json").out)["refs"]
    assert found["url"] == "https://bitbucket.org/ann/built/branch/fix/%231%2050%25"
    assert found["commit_url"] == f"https://bitbucket.org/ann/built/commits/{HASH}"


def test_show_web_opens_a_browser_and_prints_the_address(folder: Folder, tmp_path: Path) -> None:
    """It calls a program of the desktop; without one, it still prints the address."""
    program = tmp_path / "bin" / "xdg-open"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    program.chmod(0o755)
    words = [sys.executable, "-m", "mirror", "show", "ann/told", "--web"]
    environment = folder.environment(PATH=f"{program.parent}:{os.environ['PATH']}")
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert (tmp_path / "opened").read_text() == done.stdout == "https://bitbucket.org/elsewhere/told\n"
    gone = folder.run("show", "ann/gone", "--web")
    assert gone.code == 1
    assert gone.err.count("\n") == 1
    assert "gone since 2026-11-02 (absent)" in gone.err
    assert "https://bitbucket.org/ann/gone" in gone.err
    assert "has no web page" in folder.run("show", "box/played", "--web").err
    both = folder.run("show", "ann/told", "--web", "--json")
    assert (both.code, both.out, "omit --json" in both.err) == (2, "", True)


def recipes() -> Iterator[tuple[str, str]]:
    """Yield the recipes of the docs that clone an owner's repositories, by their languages."""
    section = (DOCS / "clients.md").read_text("utf-8").split("## Clone everything of an owner")[1]
    yield from re.findall(r"```(bash|python)\n(.*?)```", section.split("\n## ")[0], re.DOTALL)


@pytest.mark.skipif(not (shutil.which("git") and shutil.which("jq")), reason="needs git and jq")
@pytest.mark.parametrize(("language", "recipe"), list(recipes()))
def test_the_recipes_clone_what_an_owner_has(folder: Folder, language: str, recipe: str) -> None:
    """Unchanged, twice, with local repositories in place of Bitbucket."""
    place = folder.path
    origin = place / "origin"
    for name in ("built", "told", "evil"):
        subprocess.run(["git", "init", "-q", "--bare", origin / f"ann/{name}.git"], check=True)
    (place / "gitconfig").write_text(f'[url "file://{origin}/"]\n\tinsteadOf = https://bitbucket.org/\n')
    program = place / "bin" / "mirror"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(folder.command())} "$@"\n')
    program.chmod(0o755)
    environment = folder.environment(
        PATH=f"{program.parent}:{os.environ['PATH']}", GIT_CONFIG_GLOBAL=str(place / "gitconfig")
    )
    command = ["bash", "-e"] if language == "bash" else [folder.command()[0], "-"]
    for _ in range(2):
        subprocess.run(command, input=recipe.replace("jespern", "ann"), cwd=place, env=environment, text=True,
                       check=True, timeout=60)  # fmt: skip
    assert {one.name for one in (place / "ann").iterdir()} == {"built.git", "evil.git", "told.git"}
    assert all((one / "HEAD").is_file() for one in (place / "ann").iterdir())


def test_the_apis_lead_to_the_same_pages(served: AsgiClient) -> None:
    """API 2.0, one by one and in pages, and Data Center's own API."""
    here = "https://git.example/ctx/projects/PRJ/repos/tool/browse"
    alone, (listed,) = (
        served.json("/2.0/repositories/PRJ/tool"),
        served.json("/2.0/repositories/PRJ")["values"],
    )
    assert alone["links"]["html"]["href"] == listed["links"]["html"]["href"] == here
    center = served.json("/rest/api/1.0/projects/PRJ/repos/tool")
    assert center["links"]["self"] == [{"href": here}]
